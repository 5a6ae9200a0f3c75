// Keeps the processes of a run on one machine alive: a killed worker or coordinator is started again (within
// a budget), a child that refuses for a reason ends the run with that reason, and nobody is left behind.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "launch/process.h"

namespace tessera {

struct ChildSpec {
  std::string name;  ///< "coordinator", "worker 2"
  ProcessSpec process;
  std::vector<std::string> restart_arguments;  ///< appended when it is started again ("--resume")
  bool decides = false;                        ///< the coordinator: its end is the end of the run
};

class Supervisor {
 public:
  /// `say` gets one line per event worth knowing (a death, a restart).
  Supervisor(std::vector<ChildSpec> children, std::function<void(const std::string&)> say);
  /// Kills whoever still runs.
  ~Supervisor();

  /// Starts every child.
  Status start();
  /// Notices deaths and restarts. The exit code of the run once it is over.
  std::optional<int> poll(Instant now);
  /// First call: the coordinator is asked to drain. Second call: everything is killed.
  void stop();
  /// Deaths that were answered by a restart.
  int recoveries() const { return recoveries_; }

 private:
  struct Child {
    ChildSpec spec;
    pid_t pid = 0;
    std::deque<Instant> deaths;
    std::optional<Instant> start_at;  ///< when it is to be started again
  };
  Status start(Child& child, bool again);
  std::optional<int> on_end(Child& child, const ProcessEnd& end, Instant now);
  std::optional<int> finish(int code, Instant now);
  void kill_all();

  std::vector<Child> children_;
  std::function<void(const std::string&)> say_;
  std::optional<int> code_;  ///< decided exit code, while the others leave
  Instant leave_by_{};
  int stops_ = 0;
  int recoveries_ = 0;
};

}  // namespace tessera
