// Runs what is missing of an experiment, some units side by side, and keeps what is finished whatever
// happens.
#pragma once
#include <functional>
#include <set>
#include <string>

#include "launch/reproduce/runner.h"
#include "launch/reproduce/survey.h"

namespace tessera {

struct CampaignOptions {
  std::string results;      ///< folder of the JSON files
  std::string only = "*";   ///< glob on unit names
  int jobs = 1;             ///< units side by side
  bool redo_stale = false;  ///< run units anew whose result is of another recipe
};

struct CampaignEnd {
  int ran = 0, failed = 0;  ///< in this session
  bool interrupted = false;
};

class Campaign {
 public:
  using Say = std::function<void(const std::string& line)>;
  Campaign(const ExperimentSpec& spec, const ProfileSpec& profile, ResolveUnit resolve,
           CampaignOptions options);

  /// Where it stands now, from the files.
  std::vector<UnitStatus> look() const;
  std::map<std::string, GridPoint> tuned() const { return survey_.tuned(known_); }
  /// Seconds that a unit will take, from the speed of those that are done.
  double estimate(const ResolvedUnit& unit) const;
  /// Is it one that run() would start, now or after others?
  bool wanted(const UnitStatus& status) const;

  /// Runs all wanted units. `stop` is asked often; when it says true, running units end without a result.
  CampaignEnd run(UnitRunner& runner, const std::function<bool()>& stop, const Say& say);

 private:
  std::optional<std::string> prepare(UnitRunner& runner, const std::string& corpus);
  void take(const UnitEnd& end, CampaignEnd& totals, const Say& say);
  void start_more(UnitRunner& runner, CampaignEnd& totals, const Say& say);
  void tell_what_cannot_run(CampaignEnd& totals, const Say& say);
  std::string position() const;
  void fail_unit(const std::string& unit, const std::string& why, CampaignEnd& totals, const Say& say);

  const ExperimentSpec& spec_;
  const ProfileSpec& profile_;
  CampaignOptions options_;
  Survey survey_;
  KnownResults known_;
  std::map<std::string, std::string> prepared_;  // corpus -> "" or the reason why it is not there
  std::map<std::string, UnitJob> running_;
  std::set<std::string> told_;  // units of which it was said that they fail or are stale
};

}  // namespace tessera
