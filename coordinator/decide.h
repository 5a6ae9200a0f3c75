// decide(): the whole behaviour of a coordinator, pure. The shell (coordinator.h) feeds it what arrives and
// performs what it says; the simulator (tests/sim) does the same in virtual time with faults at every action.
#pragma once
#include <string>
#include <vector>

#include "coordinator/state.h"

namespace tessera {

struct Decision {
  std::vector<Action> actions;  ///< to be performed in this order, each done before the next
  std::string reason;           ///< in words, for the log and for people who step through a run
};
Decision decide(State& state, const Event& event, Instant now);

}  // namespace tessera
