#include "coordinator/planner.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/text.h"

namespace tessera {
namespace {

using Sentences = std::vector<std::string>;

/// The cut groups that a cut setting like "mlp+heads" selects, in the family's order.
std::vector<CutGroup> selected_groups(const std::vector<CutGroup>& cuts, const std::string& cut,
                                      Sentences& wrong) {
  if (cut == "none") return {};
  std::set<std::string> kinds;
  for (const CutGroup& group : cuts) kinds.insert(group.kind);
  std::vector<std::string> known{"none"};
  known.insert(known.end(), kinds.begin(), kinds.end());
  std::set<std::string> chosen;
  for (const std::string& kind : split(cut, '+')) {
    if (kinds.count(kind)) {
      chosen.insert(kind);
    } else if (kind == "none") {
      wrong.push_back("partial.cut = '" + cut + "' joins 'none' with a cut; use one or the other.");
    } else {
      const std::string near = nearest_name(kind, known);
      wrong.push_back("partial.cut: this model has no cut named '" + kind + "'" +
                      (near.empty() ? "." : "; did you mean '" + near + "'?") +
                      " It can be cut by: " + join(known, ", ") + ".");
    }
  }
  std::vector<CutGroup> groups;
  for (const CutGroup& group : cuts) {
    if (chosen.count(group.kind)) groups.push_back(group);
  }
  return groups;
}

/// "2 and 5", the divisors of `units` next to `n` on both sides.
std::string nearest_divisors(std::int64_t units, std::int64_t n) {
  std::int64_t below = 1, above = units;
  for (std::int64_t d = 1; d <= units; ++d) {
    if (units % d != 0) continue;
    if (d < n) below = d;
    if (d > n) {
      above = d;
      break;
    }
  }
  return above > n ? std::to_string(below) + " and " + std::to_string(above) : std::to_string(below);
}

void check_slices(const std::vector<CutGroup>& groups, const PartialSettings& settings, std::int32_t slots,
                  Sentences& wrong) {
  const std::int64_t n = settings.slices;
  const std::string setting = "partial.slices = " + std::to_string(n);
  if (settings.cut == "none") {
    if (n != 1)
      wrong.push_back(
          setting +
          " needs something to cut, but partial.cut is 'none'; set partial.cut or leave slices at 1.");
    return;
  }
  if (n > slots) {
    wrong.push_back(setting + " leaves " + std::to_string(n - slots) +
                    " slices without an owner: there are only " + std::to_string(slots) +
                    " slots; use at most " + std::to_string(slots) + " slices or more slots.");
  }
  std::int64_t common = 0;  // a number of slices has to divide the units of every group
  for (const CutGroup& group : groups) common = std::gcd(common, group.units);
  std::set<std::pair<std::string, std::int64_t>> told;  // one sentence for all layers that are alike
  for (const CutGroup& group : groups) {
    if (group.units % n == 0 || !told.insert({group.kind, group.units}).second) continue;
    wrong.push_back(setting + " does not divide the " + std::to_string(group.units) + " " + group.unit +
                    " of " + group.name + "; nearest that do: " + nearest_divisors(common, n) + ".");
  }
}

/// Rows that the units [begin, end) of a group own of one member.
Rows rows_of_units(const CutGroup::Member& member, std::int64_t begin, std::int64_t end) {
  return {member.offset + begin * member.rows_per_unit, member.offset + end * member.rows_per_unit};
}

/// Everything trainable that no slice of `cut` holds.
RowSet uncut_rows(const std::vector<ParamSpec>& specs, const RowSet& cut) {
  RowSet rest;
  for (const ParamSpec& spec : specs) {
    if (spec.role != Role::weight) continue;
    std::int64_t next = 0;
    if (auto found = cut.find(spec.name); found != cut.end()) {
      for (const Rows& rows : found->second) {
        add_rows(rest, spec.name, {next, rows.begin});
        next = rows.end;
      }
    }
    add_rows(rest, spec.name, {next, spec.rows()});
  }
  return rest;
}

}  // namespace

void PartialSettings::fields(FieldVisitor& f) {
  f.field({"cut",
           "what is divided among the slots: none (every slot trains everything, DiLoCo), or kinds of cut "
           "that the model "
           "declares, joined by '+': mlp (hidden units)"},
          cut);
  f.field(
      {"slices",
       "parts that each cut group is divided into; must divide its units, and be at most the number of slots",
       at_least(1)},
      slices);
  f.field({"assign", "which slot owns which slice; modulo: slot s owns slice s mod slices of every group",
           one_of({"modulo"})},
          assign);
  f.field({"owner_view",
           "what the owners of a slice go on with after a merge. reset: the merged values, as everybody else "
           "(the "
           "paper); fast: their own, while all others and evaluation see a slow copy that follows at "
           "outer.cut_lr",
           one_of({"reset", "fast"})},
          owner_view);
  f.field({"average",
           "what the changes of a coordinate are divided by. owners: the slots that trained it (the paper); "
           "slots: "
           "all slots, for comparison",
           one_of({"owners", "slots"})},
          average);
  f.field({"inner_lr_scale", "times inner.lr is the learning rate of what is cut", positive()},
          inner_lr_scale);
}

std::vector<std::string> PartialSettings::problems() const {
  if (owner_view == "fast" && average == "slots")
    return {
        "partial.average = \"slots\" does not go with partial.owner_view = \"fast\", whose fast values are "
        "means "
        "over owners"};
  if (cut == "none" && slices > 1)
    return {"partial.slices = " + std::to_string(slices) + " needs a partial.cut other than 'none'"};
  return {};
}

Result<Plan> make_plan(const std::vector<ParamSpec>& specs, const std::vector<CutGroup>& cuts,
                       const PartialSettings& settings, std::int32_t slots) {
  TESSERA_CHECK_LE(1, slots);
  TESSERA_CHECK_LE(1, settings.slices);
  Sentences wrong;
  const std::vector<CutGroup> groups = selected_groups(cuts, settings.cut, wrong);
  check_slices(groups, settings, slots, wrong);
  if (!wrong.empty()) return fail(ExitCode::usage, join(wrong, "\n"));

  Plan plan{slots, {}};
  RowSet cut;
  const std::int64_t n = settings.slices;
  for (const CutGroup& group : groups) {
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int64_t begin = k * group.units / n, end = (k + 1) * group.units / n;
      Slice slice;
      slice.name =
          group.name + "/" + group.unit + "[" + std::to_string(begin) + ":" + std::to_string(end) + "]";
      for (const CutGroup::Member& member : group.members) {
        add_rows(slice.rows, member.param, rows_of_units(member, begin, end));
        add_rows(cut, member.param, rows_of_units(member, begin, end));
      }
      for (std::int32_t slot = static_cast<std::int32_t>(k); slot < slots;
           slot += static_cast<std::int32_t>(n)) {
        slice.owners.push_back(slot);
      }
      plan.slices.push_back(std::move(slice));
    }
  }
  Slice shared{"shared", uncut_rows(specs, cut), std::vector<std::int32_t>(slots)};
  std::iota(shared.owners.begin(), shared.owners.end(), 0);
  if (!shared.rows.empty()) plan.slices.push_back(std::move(shared));
  check_plan(plan, specs);
  return plan;
}

void check_plan(const Plan& plan, const std::vector<ParamSpec>& specs) {
  std::map<std::string, std::vector<Rows>> held;
  for (const Slice& slice : plan.slices) {
    TESSERA_CHECK(!slice.owners.empty(), ": nobody owns ", slice.name);
    TESSERA_CHECK(std::adjacent_find(slice.owners.begin(), slice.owners.end(), std::greater_equal<>()) ==
                      slice.owners.end(),
                  ": owners of ", slice.name, " are not ascending");
    TESSERA_CHECK(slice.owners.front() >= 0 && slice.owners.back() < plan.slots, ": ", slice.name,
                  " is owned by slot ", slice.owners.front(), " or ", slice.owners.back(), " of ",
                  plan.slots);
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
