#include "launch/reproduce/campaign.h"

#include <algorithm>
#include <cstdio>

#include "base/text.h"
#include "eval/statistics.h"

namespace tessera {

Campaign::Campaign(const ExperimentSpec& spec, const ProfileSpec& profile, ResolveUnit resolve,
                   CampaignOptions options)
    : spec_(spec),
      profile_(profile),
      options_(std::move(options)),
      survey_(spec, profile, std::move(resolve)),
      known_(read_results(options_.results)) {}

std::vector<UnitStatus> Campaign::look() const {
  return survey_.units(known_);
}

double Campaign::estimate(const ResolvedUnit& unit) const {
  std::vector<double> rates;
  for (const auto& [name, result] : known_.results) {
    if (result.wall_seconds > 0 && result.flops > 0) rates.push_back(result.flops / result.wall_seconds);
  }
  return unit.flops() / (rates.empty() ? spec_.flops_per_second : median(rates));
}

bool Campaign::wanted(const UnitStatus& status) const {
  if (!glob_matches(options_.only, status.unit.name)) return false;
  return status.state == UnitState::ready || status.state == UnitState::waiting ||
         (status.state == UnitState::stale && options_.redo_stale);
}

/// "[12/240, about 3 h 20 min left]"
std::string Campaign::position() const {
  int all = 0, done = 0;
  double left = 0, typical = 0;
  for (const UnitStatus& status : look()) {
    if (!glob_matches(options_.only, status.unit.name)) continue;
    ++all;
    if (status.resolved) typical = estimate(*status.resolved);
    if (status.state == UnitState::done) ++done;
    if (wanted(status)) left += status.resolved ? estimate(*status.resolved) : typical;
  }
  const std::string time = left > 0 ? ", about " + format_duration(left / options_.jobs) + " left" : "";
  return "[" + std::to_string(done) + "/" + std::to_string(all) + time + "]";
}

std::optional<std::string> Campaign::prepare(UnitRunner& runner, const std::string& corpus) {
  auto known = prepared_.find(corpus);
  if (known == prepared_.end()) {
    const Status status = runner.prepare(*spec_.corpus(corpus));
    known = prepared_.emplace(corpus, status.ok() ? "" : status.error().message).first;
  }
  return known->second.empty() ? std::nullopt : std::optional(known->second);
}

void Campaign::fail_unit(const std::string& unit, const std::string& why, CampaignEnd& totals,
                         const Say& say) {
  known_.failures[unit] = why;
  told_.insert(unit);
  ++totals.failed;
  say(unit + " FAILED: " + why);
}

void Campaign::take(const UnitEnd& end, CampaignEnd& totals, const Say& say) {
  running_.erase(end.unit);
  if (!end.result.ok()) return fail_unit(end.unit, end.result.error().message, totals, say);
  const UnitResult& result = *end.result;
  if (const Status written = write_unit_result(result, options_.results); !written.ok())
    return fail_unit(end.unit, written.error().message, totals, say);
  known_.results[end.unit] = result;
  ++totals.ran;
  char loss[64];
  std::snprintf(loss, sizeof loss, "held-out loss %.4f", result.final_loss);
  say(position() + " " + end.unit + ": " + loss + " in " + format_duration(result.wall_seconds));
}

void Campaign::start_more(UnitRunner& runner, CampaignEnd& totals, const Say& say) {
  if (static_cast<int>(running_.size()) >= options_.jobs) return;
  for (const UnitStatus& status : look()) {
    if (static_cast<int>(running_.size()) >= options_.jobs) return;
    const std::string& name = status.unit.name;
    if (!wanted(status) || status.state == UnitState::waiting || running_.count(name) > 0) continue;
    if (const auto missing = prepare(runner, status.unit.corpus)) {
      fail_unit(name, *missing, totals, say);
      continue;
    }
    const UnitJob job{status.unit, status.composed, *status.resolved};
    if (const Status started = runner.start(job); !started.ok()) {
      fail_unit(name, started.error().message, totals, say);
      continue;
    }
    running_.emplace(name, job);
    say(position() + " " + name + " started, about " + format_duration(estimate(job.resolved)));
  }
}

/// Units of an arm nearly always fail for one reason: each reason is told once.
void Campaign::tell_what_cannot_run(CampaignEnd& totals, const Say& say) {
  std::map<std::string, std::vector<std::string>> reasons;
  for (const UnitStatus& status : look()) {
    if (!glob_matches(options_.only, status.unit.name) || told_.count(status.unit.name) > 0) continue;
    if (status.state == UnitState::failed) {
      reasons["cannot run: " + status.why].push_back(status.unit.name);
      ++totals.failed;
    } else if (status.state == UnitState::stale && !options_.redo_stale) {
      reasons["stale and left alone (--redo-stale runs it anew): " + status.why].push_back(status.unit.name);
    }
  }
  for (const auto& [why, units] : reasons) {
    told_.insert(units.begin(), units.end());
    const std::string more = units.size() > 1 ? " and " + std::to_string(units.size() - 1) + " more" : "";
    say(units.front() + more + ": " + why);
  }
}

CampaignEnd Campaign::run(UnitRunner& runner, const std::function<bool()>& stop, const Say& say) {
  CampaignEnd totals;
  tell_what_cannot_run(totals, say);
  bool changed = true;  // looking at all units costs time that the running ones need
  while (!(totals.interrupted = stop())) {
    if (changed) start_more(runner, totals, say);
    if (running_.empty()) break;
    const std::optional<UnitEnd> end = runner.poll();
    changed = end.has_value();
    if (end) take(*end, totals, say);
  }
  if (totals.interrupted) {
    runner.stop();
    running_.clear();
  } else {
    tell_what_cannot_run(totals, say);  // what waited for units that failed
  }
  return totals;
}

}  // namespace tessera
