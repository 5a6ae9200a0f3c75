// Endpoints of one process and one thread: debug mode and tests. Messages still take their wire form and pass
// decode(); blobs are handed over by shared pointer. No sockets, no time, the same order every run.
#pragma once
#include <memory>

#include "comm/transport/endpoint.h"

namespace tessera {

/// receive() never waits: an empty queue returns nothing at once, since the time is the caller's. Endpoints
/// keep working when the hub object is gone. Not thread-safe.
class InprocHub {
 public:
  InprocHub();
  ~InprocHub();
  /// At most one at a time; after it is destroyed another may be made (a restarted coordinator).
  std::unique_ptr<Endpoint> make_coordinator();
  /// Its PeerId is {1, n} for the n-th worker made, counting from 1.
  std::unique_ptr<Endpoint> make_worker();

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tessera
