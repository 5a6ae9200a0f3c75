// Where an experiment stands: which units have a result that stands for their recipe, which are stale, which
// can run, and which wait for the tuning of an arm. Pure, given the results.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launch/reproduce/resolve.h"
#include "launch/reproduce/unit_result.h"

namespace tessera {

enum class UnitState {
  done,
  stale,    ///< there is a result of another recipe
  ready,    ///< can be run
  waiting,  ///< for the tuning of an arm
  failed,   ///< cannot be run, or was and failed
};

struct UnitStatus {
  Unit unit;
  UnitState state = UnitState::failed;
  std::string why;  ///< stale: what differs; waiting: for whom; failed: the error
  Composed composed;
  std::optional<ResolvedUnit> resolved;
  std::optional<UnitResult> result;  ///< done, stale
};

/// Results that were found, and units that failed in this session, by unit name.
struct KnownResults {
  std::map<std::string, UnitResult> results;
  std::map<std::string, std::string> failures;
};
/// All readable results of a folder; unreadable ones are failures with the reason. No folder: nothing.
KnownResults read_results(const std::string& folder);

class Survey {
 public:
  Survey(const ExperimentSpec& spec, const ProfileSpec& profile, ResolveUnit resolve);

  /// All units of the profile in order.
  std::vector<UnitStatus> units(const KnownResults& known) const;
  /// The tuned point of every arm that has one.
  std::map<std::string, GridPoint> tuned(const KnownResults& known) const;

 private:
  const ExperimentSpec& spec_;
  const ProfileSpec& profile_;
  ResolveUnit resolve_;  // remembers what it has resolved
};

}  // namespace tessera
