// Runs units as child processes on one core each: `tessera debug` (or train), then `tessera eval` on all
// held-out text.
#pragma once
#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "launch/process.h"
#include "launch/reproduce/runner.h"

namespace tessera {

struct ChildRunnerOptions {
  std::string program;  ///< tessera
  std::string root;     ///< source tree: scripts and data lie beneath it
  std::string work;     ///< folder of run directories and of what the children say
  std::string commit, build, machine;
};

class ChildRunner final : public UnitRunner {
 public:
  ChildRunner(const ExperimentSpec& spec, const ProfileSpec& profile, ChildRunnerOptions options);
  Status prepare(const CorpusSpec& corpus) override;
  Status start(const UnitJob& job) override;
  std::optional<UnitEnd> poll() override;
  void stop() override;

 private:
  struct Running {
    UnitJob job;
    Instant begin;
    std::optional<UnitResult> trained;  // set once its evaluation runs
  };
  std::string run_folder(const std::string& unit) const { return options_.work + "/" + unit; }
  std::string said_by(const std::string& unit) const { return run_folder(unit) + ".log"; }
  std::string score_of(const std::string& unit) const { return run_folder(unit) + ".score"; }
  Result<pid_t> start_training(const UnitJob& job) const;
  Result<pid_t> start_evaluation(const UnitJob& job) const;
  /// Nothing when the unit goes on with its evaluation.
  std::optional<Result<UnitResult>> go_on(Running& unit, const ProcessEnd& end);
  Result<UnitResult> finish(Running& unit) const;
  Error trouble(const Running& unit, const std::string& what) const;
  std::optional<UnitEnd> over_time();
  void clean(const std::string& unit) const;

  const ExperimentSpec& spec_;
  const ProfileSpec& profile_;
  ChildRunnerOptions options_;
  SystemClock clock_;
  std::map<pid_t, Running> running_;
  std::vector<ProcessEnd> ended_early_;  // units that ended while a corpus was prepared
  std::map<std::string, std::string> corpus_hashes_;
};

}  // namespace tessera
