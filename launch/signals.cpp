#include "launch/signals.h"

#include <signal.h>

namespace tessera {
namespace {

// A signal handler can reach nothing but a static; StopSignals owns it for as long as it lives.
volatile sig_atomic_t count = 0;

void on_signal(int) {
  count = count + 1;
}

void set_handler(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

StopSignals::StopSignals() {
  count = 0;
  set_handler(on_signal);
}
StopSignals::~StopSignals() {
  set_handler(SIG_DFL);
}
int StopSignals::received() const {
  return count;
}

}  // namespace tessera
