// The binary: everything else is reached from run_cli.
#include "launch/cli.h"

int main(int argc, char** argv) {
  return tessera::run_cli(argc, argv);
}
