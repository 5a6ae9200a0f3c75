#include "coordinator/planner.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/text.h"
#include "coordinator/assign.h"
#include "coordinator/cuts.h"

namespace tessera {
namespace {

RowSet all_rows(const std::vector<ParamSpec>& specs) {
  RowSet all;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) add_rows(all, spec.name, {0, spec.rows()});
  }
  return all;
}

void check_parts(const Divisible& divisible, const PartialSettings& settings, Sentences& wrong) {
  const std::string setting = "partial.slices = " + std::to_string(settings.slices);
  const std::int64_t most = divisible.most_parts();
  const std::string use = "; use at most " + std::to_string(most) + ".";
  std::set<std::pair<std::string, std::int64_t>> told;  // one sentence for all layers that are alike
  for (const Divisible::Group& from : divisible.groups) {
    const auto units = static_cast<std::int64_t>(from.units.size());
    if (units >= settings.slices || !told.insert({from.group.kind, units}).second) continue;
    wrong.push_back(setting + " is more than the " + std::to_string(units) + " " + from.group.unit + " of " +
                    from.group.name + use);
  }
  const auto tensors = static_cast<std::int64_t>(divisible.tensors.size());
  if (tensors > 0 && tensors < settings.slices) {
    wrong.push_back(setting + " is more than the " + std::to_string(tensors) +
                    " whole tensors of partial.cut = '" + settings.cut + "'" + use);
  }
}

/// How equal the slots' predicted step times are, in percent of the longest.
std::string balance_note(const std::vector<PartSlice>& slices, const std::vector<ParamSpec>& specs,
                         const std::vector<std::vector<std::int32_t>>& owners,
                         const PartialSettings& settings, const SlotWork& work) {
  std::vector<ParamSpec> matrices;
  std::copy_if(specs.begin(), specs.end(), std::back_inserter(matrices),
               [](const ParamSpec& spec) { return spec.shape.size() >= 2; });
  std::vector<double> held(owners.size(), 0);
  for (const PartSlice& slice : slices)
    held[slice.part] += static_cast<double>(elements_in(slice.slice.rows, matrices));
  const double all = std::max(1.0, std::accumulate(held.begin(), held.end(), 0.0));
  const auto spread = [&](bool sized) {
    double shortest = 0, longest = 0;
    for (std::size_t k = 0; k < owners.size(); ++k) {
      for (const std::int32_t slot : owners[k]) {
        const double share = sized ? held[k] / all : 1 / static_cast<double>(owners.size());
        const double time = work.time(share, settings.speeds[slot]);
        shortest = shortest == 0 ? time : std::min(shortest, time);
        longest = std::max(longest, time);
      }
    }
    return std::to_string(static_cast<int>(100 * (longest - shortest) / longest + 0.5));
  };
  return "partial.assign = \"balanced\": by partial.speeds the fastest slot waits " + spread(true) +
         "% of a step for the slowest; with equal slices it would wait " + spread(false) + "%.";
}

}  // namespace

Result<std::vector<ParamSpec>> trained_specs(std::vector<ParamSpec> specs, const PartialSettings& settings) {
  Sentences wrong;
  specs = mark_frozen(std::move(specs), settings, wrong);
  if (!wrong.empty()) return fail(ExitCode::usage, join(wrong, "\n"));
  return specs;
}

Result<PlanSchedule> PlanSchedule::make(const std::vector<ParamSpec>& specs,
                                        const std::vector<CutGroup>& cuts, const PartialSettings& settings,
                                        std::int32_t slots, const CostModel& cost) {
  TESSERA_CHECK_LE(1, slots);
  TESSERA_CHECK_LE(1, settings.slices);
  Sentences wrong = settings.problems();
  for (std::string& problem : assignment_problems(settings, slots)) wrong.push_back(std::move(problem));
  const Divisible divisible = select_cut(specs, cuts, settings, wrong);
  check_parts(divisible, settings, wrong);
  if (!wrong.empty()) return fail(ExitCode::usage, join(wrong, "\n"));

  PlanSchedule schedule;
  schedule.slots_ = slots;
  schedule.everybody_.resize(slots);
  std::iota(schedule.everybody_.begin(), schedule.everybody_.end(), 0);
  RowSet cut;
  if (!divisible.empty()) {
    schedule.owners_ = owners_of_parts(settings, slots);
    const SlotWork work = work_of(divisible, cost);
    const std::vector<double> shares = shares_of_parts(settings, schedule.owners_, divisible, work);
    const std::vector<PartSlice> slices = divide(divisible, shares, schedule.notes_);
    if (settings.assign == "balanced")
      schedule.notes_.push_back(balance_note(slices, specs, schedule.owners_, settings, work));
    for (const PartSlice& slice : slices) {
      schedule.slices_.push_back(slice.slice);
      schedule.part_.push_back(slice.part);
      add_rows(cut, slice.slice.rows);
    }
    schedule.rotate_every_ = settings.rotate_every;
    if (settings.rotate_state == "hand_over" && settings.rotate_every > 0) {
      schedule.notes_.push_back(
          "partial.rotate_state = \"hand_over\": before slots pass on, moments of the cut travel too; the "
          "bytes here are those of the other rounds.");
    }
    schedule.may_rest_ = settings.blocks();
  }
  Slice shared{"shared", rows_without(all_rows(specs), cut), {}};
  if (!shared.rows.empty()) {
    schedule.slices_.push_back(std::move(shared));
    schedule.part_.push_back(-1);
  }
  const Plan first = schedule.at({0});
  for (std::int32_t slot = 0; slot < slots; ++slot) {
    if (!first.owned_by(slot).empty()) continue;
    return fail(ExitCode::usage, "partial.", settings.assign == "explicit" ? "owners" : "slices",
                " leaves slot ", slot, " nothing to train: all is cut, and no slice is its own.");
  }
  check_plan(first, specs);
  return schedule;
}

std::int64_t PlanSchedule::turn(Version version) const {
  return rotate_every_ > 0 && parts() > 0 ? version.value / rotate_every_ % parts() : 0;
}

/// Slot k, which begins with part p, owns part p + turn: part p belongs to who began with p - turn.
const std::vector<std::int32_t>& PlanSchedule::owners_of(std::size_t slice, Version version) const {
  if (part_[slice] < 0) return everybody_;
  return owners_[(part_[slice] - turn(version) + parts()) % parts()];
}

Plan PlanSchedule::at(Version version) const {
  Plan plan{.slots = slots_, .slices = slices_, .may_rest = may_rest_, .notes = notes_};
  for (std::size_t i = 0; i < slices_.size(); ++i) plan.slices[i].owners = owners_of(i, version);
  return plan;
}

RowSet PlanSchedule::owned(SlotId slot, Version version) const {
  RowSet owned;
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    const std::vector<std::int32_t>& owners = owners_of(i, version);
    if (!std::binary_search(owners.begin(), owners.end(), slot.value)) continue;
    add_rows(owned, slices_[i].rows);
  }
  return owned;
}

RowSet PlanSchedule::handed_over(SlotId slot, Version version) const {
  RowSet rows;
  if (!changes_at({version.value + 1})) return rows;
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    const std::vector<std::int32_t>& owners = owners_of(i, version);
    if (part_[i] < 0 || !std::binary_search(owners.begin(), owners.end(), slot.value)) continue;
    add_rows(rows, slices_[i].rows);
  }
  return rows;
}

std::vector<RowSet> PlanSchedule::slice_rows() const {
  std::vector<RowSet> rows(owners_.size());
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    if (part_[i] >= 0) add_rows(rows[part_[i]], slices_[i].rows);
  }
  return rows;
}

std::vector<std::string> PlanSchedule::cut_parameters() const {
  std::set<std::string> names;
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    if (part_[i] < 0) continue;
    for (const auto& [param, ranges] : slices_[i].rows) names.insert(param);
  }
  return {names.begin(), names.end()};
}

RowSet PlanSchedule::trained(Version version) const {
  RowSet trained;
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    if (owners_of(i, version).empty()) continue;
    add_rows(trained, slices_[i].rows);
  }
  return trained;
}

bool PlanSchedule::changes_at(Version version) const {
  return version.value > 0 && turn(version) != turn({version.value - 1});
}

Result<Plan> make_plan(const std::vector<ParamSpec>& specs, const std::vector<CutGroup>& cuts,
                       const PartialSettings& settings, std::int32_t slots, const CostModel& cost) {
  TESSERA_ASSIGN(const PlanSchedule schedule, PlanSchedule::make(specs, cuts, settings, slots, cost));
  return schedule.at({0});
}

void check_plan(const Plan& plan, const std::vector<ParamSpec>& specs) {
  std::map<std::string, std::vector<Rows>> held;
  for (const Slice& slice : plan.slices) {
    TESSERA_CHECK(plan.may_rest || !slice.owners.empty(), ": nobody owns ", slice.name);
    TESSERA_CHECK(std::adjacent_find(slice.owners.begin(), slice.owners.end(), std::greater_equal<>()) ==
                      slice.owners.end(),
                  ": owners of ", slice.name, " are not ascending");
    TESSERA_CHECK(slice.owners.empty() || (slice.owners.front() >= 0 && slice.owners.back() < plan.slots),
                  ": ", slice.name, " is owned by slot ", slice.owners.empty() ? 0 : slice.owners.back(),
                  " of ", plan.slots);
    for (const auto& [param, ranges] : slice.rows) {
      held[param].insert(held[param].end(), ranges.begin(), ranges.end());
    }
  }
  for (const ParamSpec& spec : specs) {
    if (spec.role != Role::weight) continue;
    std::vector<Rows> ranges = std::move(held[spec.name]);
    held.erase(spec.name);
    std::sort(ranges.begin(), ranges.end());
    std::int64_t next = 0;
    for (const Rows& rows : ranges) {
      TESSERA_CHECK(rows.begin == next && rows.end > rows.begin, ": slices of ", spec.name, " meet at row ",
                    next, " and ", rows.begin);
      next = rows.end;
    }
    TESSERA_CHECK(next == spec.rows(), ": slices of ", spec.name, " end at row ", next, " of ", spec.rows());
  }
  TESSERA_CHECK(held.empty(), ": a slice holds ", held.begin()->first,
                ", which is not a trainable parameter");
}

}  // namespace tessera
