#include "launch/reproduce/summary.h"

#include <algorithm>
#include <limits>

#include "launch/simulate/simulate.h"

namespace tessera {

std::vector<double> ArmRuns::losses() const {
  std::vector<double> losses;
  for (const auto& [seed, result] : by_seed) losses.push_back(result.final_loss);
  return losses;
}

double ArmRuns::typical(double UnitResult::*member) const {
  std::vector<double> values;
  for (const auto& [seed, result] : by_seed) values.push_back(result.*member);
  return median(values);
}

double ArmRuns::flops_per_second() const {
  std::vector<double> rates;
  for (const auto& [seed, result] : by_seed) {
    // Compute is timed by the clock on the wall; on a busy machine the process had only a part of that.
    const double share = std::min(1.0, result.cpu_seconds / result.wall_seconds);
    if (result.compute_seconds > 0) rates.push_back(result.flops / (result.compute_seconds * share));
  }
  return median(rates);
}

double ArmRuns::round_seconds(double mbits) const {
  if (!resolved) return std::numeric_limits<double>::quiet_NaN();
  const Cluster cluster{
      .flops_per_second = flops_per_second(), .up_bits = mbits * 1e6, .down_bits = mbits * 1e6};
  const Outcome outcome = simulate(resolved->workload, cluster);
  const double rounds = outcome.steps / static_cast<double>(resolved->cost_settings.steps) / resolved->share;
  return (arm->alone ? outcome.compute_seconds : outcome.seconds) / rounds;
}

std::vector<CurvePoint> ArmRuns::mean_curve() const {
  std::vector<CurvePoint> curve;
  for (const auto& [seed, result] : by_seed) {
    if (curve.empty()) {
      curve = result.curve;
      continue;
    }
    curve.resize(std::min(curve.size(), result.curve.size()));
    for (std::size_t i = 0; i < curve.size(); ++i) {
      curve[i].eval_loss += result.curve[i].eval_loss;
      curve[i].train_loss += result.curve[i].train_loss;
    }
  }
  for (CurvePoint& point : curve) {
    point.eval_loss /= static_cast<double>(by_seed.size());
    point.train_loss /= static_cast<double>(by_seed.size());
  }
  return curve;
}

std::vector<ArmRuns> runs_of(const ExperimentSpec& spec, const CoverSpec& cover,
                             const std::vector<UnitStatus>& units) {
  std::vector<ArmRuns> all;
  for (const std::string& name : cover.arms) {
    ArmRuns runs;
    runs.arm = spec.arm(name);
    for (const UnitStatus& status : units) {
      const Unit& unit = status.unit;
      if (status.state != UnitState::done || unit.tuning() || unit.processes || unit.arm != name ||
          unit.size != cover.size || unit.corpus != cover.corpus ||
          std::count(cover.seeds.begin(), cover.seeds.end(), unit.seed) == 0)
        continue;
      runs.by_seed[unit.seed] = *status.result;
      runs.resolved = status.resolved;
    }
    if (!runs.by_seed.empty()) all.push_back(std::move(runs));
  }
  return all;
}

const ArmRuns* find_runs(const std::vector<ArmRuns>& all, const std::string& arm) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const ArmRuns& runs) { return runs.arm->name == arm; });
  return found == all.end() ? nullptr : &*found;
}

std::vector<double> relative_differences(const ArmRuns& a, const ArmRuns& b) {
  std::vector<double> differences;
  for (const auto& [seed, result] : a.by_seed) {
    const auto other = b.by_seed.find(seed);
    if (other == b.by_seed.end()) continue;
    differences.push_back((result.final_loss - other->second.final_loss) / other->second.final_loss);
  }
  return differences;
}

}  // namespace tessera
