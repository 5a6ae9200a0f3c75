// SIGINT and SIGTERM as a count that loops look at; the handler does nothing else.
#pragma once

namespace tessera {

/// While it lives, SIGINT and SIGTERM are counted instead of ending the process. One at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  int received() const;
};

}  // namespace tessera
