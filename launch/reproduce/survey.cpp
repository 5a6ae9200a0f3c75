#include "launch/reproduce/survey.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "base/text.h"

namespace tessera {
namespace {

/// Resolving builds a model's plan: each recipe is asked for once.
ResolveUnit remembering(ResolveUnit resolve) {
  auto known = std::make_shared<std::map<std::vector<std::string>, Result<ResolvedUnit>>>();
  return [known, resolve = std::move(resolve)](const std::vector<std::string>& overrides) {
    auto found = known->find(overrides);
    if (found == known->end()) found = known->emplace(overrides, resolve(overrides)).first;
    return found->second;
  };
}

/// Lists and tables have a line per unit.
std::string in_one_line(const std::string& text) {
  return join(split(text, '\n'), "; ");
}

/// One look at all units with fixed results; tuned points are worked out as they are asked for.
class Look {
 public:
  Look(const ExperimentSpec& spec, const ProfileSpec& profile, const ResolveUnit& resolve,
       const KnownResults& known)
      : spec_(spec), profile_(profile), resolve_(resolve), known_(known) {}

  UnitStatus status(const Unit& unit) {
    UnitStatus status{
        .unit = unit, .state = UnitState::failed, .why = "", .composed = {}, .resolved = {}, .result = {}};
    const auto failed = [&](const std::string& why) {
      status.state = UnitState::failed;
      status.why = in_one_line(why);
      return status;
    };
    Result<Composed> composed =
        compose(spec_, profile_, unit, [this](const ArmSpec& arm) { return tuned(arm); });
    if (!composed.ok()) return failed(composed.error().message);
    status.composed = *composed;
    if (!composed->waits_for.empty()) {
      if (hopeless_.count(composed->waits_for) > 0)
        return failed("no point of the grid of " + composed->waits_for + " gave a result");
      status.state = UnitState::waiting;
      status.why = "waits for the tuning of " + composed->waits_for;
      return with_stand_in(unit, std::move(status));
    }
    const Result<ResolvedUnit> resolved = resolve_(composed->overrides);
    if (!resolved.ok()) return failed(resolved.error().message);
    status.resolved = *resolved;
    if (resolved->eval_every == 0 || resolved->rounds % resolved->eval_every != 0)
      return failed("rounds = " + std::to_string(resolved->rounds) + " is no multiple of eval.every = " +
                    std::to_string(resolved->eval_every) + ", so that the last round would not be measured");
    if (const auto failure = known_.failures.find(unit.name); failure != known_.failures.end())
      return failed(failure->second);
    const auto found = known_.results.find(unit.name);
    if (found == known_.results.end()) {
      status.state = UnitState::ready;
      return status;
    }
    status.result = found->second;
    const std::vector<std::string> changed =
        differences(found->second.recipe, resolved->recipe, composed->settings);
    status.state = changed.empty() ? UnitState::done : UnitState::stale;
    status.why = join(changed, "; ");
    return status;
  }

  /// What a waiting unit costs does not depend on what is tuned, and mistakes in its files are better told
  /// now: it is resolved with the first points of the grids.
  UnitStatus with_stand_in(const Unit& unit, UnitStatus status) {
    const Result<Composed> composed =
        compose(spec_, profile_, unit, [this](const ArmSpec& arm) -> std::optional<GridPoint> {
          const std::vector<GridPoint> points = spec_.points(arm.grid, profile_);
          return points.empty() ? GridPoint{} : points.front();
        });
    const Result<ResolvedUnit> resolved =
        composed.ok() ? resolve_(composed->overrides) : Result<ResolvedUnit>(composed.error());
    if (resolved.ok()) {
      status.resolved = *resolved;
    } else {
      status.state = UnitState::failed;
      status.why = in_one_line(resolved.error().message);
    }
    return status;
  }

  /// The best of the arm's points, once each of them has a result or has failed.
  std::optional<GridPoint> tuned(const ArmSpec& arm) {
    const auto before = tuned_.find(arm.name);
    if (before != tuned_.end()) return before->second;
    std::optional<GridPoint> best;
    double best_loss = std::numeric_limits<double>::infinity();
    bool complete = true;
    const std::vector<GridPoint> points = spec_.points(arm.grid, profile_);
    for (const Unit& unit : tuning_units(spec_, profile_, arm)) {
      const UnitStatus result = status(unit);
      complete = complete && (result.state == UnitState::done || result.state == UnitState::failed);
      if (result.state != UnitState::done || !(result.result->final_loss < best_loss)) continue;
      best_loss = result.result->final_loss;
      for (const GridPoint& point : points) {
        if (point.name == unit.point) best = point;
      }
    }
    if (complete && !best) hopeless_.insert(arm.name);
    if (!complete) best.reset();
    tuned_[arm.name] = best;
    return best;
  }

 private:
  const ExperimentSpec& spec_;
  const ProfileSpec& profile_;
  const ResolveUnit& resolve_;
  const KnownResults& known_;
  std::map<std::string, std::optional<GridPoint>> tuned_;
  std::set<std::string> hopeless_;  // arms all of whose points failed
};

/// Arms are compared at equal tokens: one that sees more or fewer than the others of its size and corpus is
/// an error of the files, unless it says that it means to.
void check_tokens(const ExperimentSpec& spec, std::vector<UnitStatus>& all) {
  std::map<std::string, std::pair<double, std::string>> first;
  for (UnitStatus& status : all) {
    if (!status.resolved || !spec.arm(status.unit.arm)->same_tokens) continue;
    const std::string group =
        status.unit.size + " " + status.unit.corpus + (status.unit.tuning() ? " tuning" : "");
    const double tokens = status.resolved->tokens();
    const auto [expected, is_first] = first.try_emplace(group, tokens, status.unit.name);
    if (std::abs(tokens - expected->second.first) <= 1e-9 * tokens) continue;
    status.state = UnitState::failed;
    status.why = "sees " + format_count(tokens) + " tokens, but " + expected->second.second + " sees " +
                 format_count(expected->second.first) + "; arms are compared at equal tokens";
  }
}

}  // namespace

KnownResults read_results(const std::string& folder) {
  KnownResults known;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing)) {
    if (entry.path().extension() != ".json") continue;
    const std::string name = entry.path().stem().string();
    Result<UnitResult> result = read_unit_result(entry.path().string());
    if (result.ok()) {
      known.results.emplace(name, std::move(*result));
    } else {
      known.failures[name] = result.error().message;
    }
  }
  return known;
}

Survey::Survey(const ExperimentSpec& spec, const ProfileSpec& profile, ResolveUnit resolve)
    : spec_(spec), profile_(profile), resolve_(remembering(std::move(resolve))) {}

std::vector<UnitStatus> Survey::units(const KnownResults& known) const {
  Look look(spec_, profile_, resolve_, known);
  std::vector<UnitStatus> all;
  for (const Unit& unit : units_of(spec_, profile_)) all.push_back(look.status(unit));
  check_tokens(spec_, all);
  return all;
}

std::map<std::string, GridPoint> Survey::tuned(const KnownResults& known) const {
  Look look(spec_, profile_, resolve_, known);
  std::map<std::string, GridPoint> tuned;
  for (const ArmSpec& arm : spec_.arms) {
    if (arm.grid.empty()) continue;
    if (const std::optional<GridPoint> point = look.tuned(arm)) tuned[arm.name] = *point;
  }
  return tuned;
}

}  // namespace tessera
