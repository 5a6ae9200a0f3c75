// Results of units gathered by arm: what table, plots and verdicts are made of. Pure.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "coordinator/cost.h"
#include "eval/statistics.h"
#include "launch/reproduce/survey.h"

namespace tessera {

/// The reported seeds of one arm on one size and corpus.
struct ArmRuns {
  const ArmSpec* arm = nullptr;
  std::map<std::int64_t, UnitResult> by_seed;
  std::optional<ResolvedUnit> resolved;  ///< of one of the seeds: they cost the same

  std::vector<double> losses() const;
  double mean_loss() const { return mean(losses()); }
  /// Over the seeds: the median of a number of the result.
  double typical(double UnitResult::*member) const;
  /// Operations per second of processor time on one core, as measured in the slots' steps.
  double flops_per_second() const;
  /// Seconds that one round takes where every slot has a core of this speed and a link of so many Mbit/s in
  /// each direction (0: unlimited), by the simulator (launch/simulate). The coordinator's own link is taken
  /// as unlimited.
  double round_seconds(double mbits) const;
  /// The mean of eval losses over the seeds, at the evaluations of the run.
  std::vector<CurvePoint> mean_curve() const;
};

/// Arms of one cover that have results, in the cover's order.
std::vector<ArmRuns> runs_of(const ExperimentSpec& spec, const CoverSpec& cover,
                             const std::vector<UnitStatus>& units);
const ArmRuns* find_runs(const std::vector<ArmRuns>& all, const std::string& arm);

/// (loss of a - loss of b) / loss of b for each seed that both have.
std::vector<double> relative_differences(const ArmRuns& a, const ArmRuns& b);

}  // namespace tessera
