// The command line of `tessera`. CLI11 appears in cli.cpp only.
#pragma once
namespace tessera {

/// Runs one command and gives the exit code of the process.
int run_cli(int argc, char** argv);

}  // namespace tessera
