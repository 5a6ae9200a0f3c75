// Mode drop: when a merge closes without everybody, who was left out of it, and which slices are held because
// all their owners were.
#include <algorithm>

#include "base/text.h"
#include "coordinator/step.h"

namespace tessera {
namespace {

/// Whether a slot with these rows owns the slice: a slice is owned as one, so its first range decides.
bool owns(const RowSet& owned, const Slice& slice) {
  if (slice.rows.empty()) return false;
  const auto& [param, ranges] = *slice.rows.begin();
  const auto found = owned.find(param);
  if (found == owned.end() || ranges.empty()) return false;
  return std::any_of(found->second.begin(), found->second.end(), [&](const Rows& rows) {
    return rows.begin <= ranges[0].begin && ranges[0].end <= rows.end;
  });
}

bool is_in(const SealedRecord& sealed, SlotId slot) {
  return std::any_of(sealed.contributions.begin(), sealed.contributions.end(),
                     [&](const StagedRecord& c) { return c.key.slot == slot; });
}

std::int64_t merges_held(const std::vector<HeldSlice>& held, const std::string& slice) {
  const auto found =
      std::find_if(held.begin(), held.end(), [&](const HeldSlice& h) { return h.name == slice; });
  return found == held.end() ? 0 : found->merges;
}

/// "a, b, c" or, of many, "a, b, ... and 12 more": the log has all of them.
std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t most = 8;
  if (names.size() <= most) return join(names, ", ");
  const std::vector<std::string> first(names.begin(), names.begin() + most);
  return join(first, ", ") + " and " + std::to_string(names.size() - most) + " more";
}

using ByMerges = std::map<std::int64_t, std::vector<std::string>>;

}  // namespace

Instant drop_deadline(const State& state, const State::Fragment& fragment) {
  TESSERA_CHECK(fragment.quorum_at.has_value());
  const CoordinatorSettings& settings = state.settings;
  if (settings.window) return *fragment.quorum_at + fragment.wait;
  if (settings.deadline > Duration{}) return *fragment.quorum_at + settings.deadline;
  return *fragment.quorum_at + std::max(settings.grace(), (*fragment.quorum_at - fragment.opened) / 2);
}

std::vector<Slice> slices_of_fragment(const Plan& plan, const RowSet& fragment) {
  std::vector<Slice> slices;
  for (const Slice& slice : plan.slices) {
    Slice part{slice.name, common_rows(slice.rows, fragment), slice.owners};
    if (!part.rows.empty()) slices.push_back(std::move(part));
  }
  return slices;
}

/// Why the merge closes with the contributions that are there; nothing: it waits for the others.
std::optional<std::string> Step::why_without_others(FragmentId fragment,
                                                    const std::vector<StagedRecord>& there) const {
  const CoordinatorSettings& settings = s_.settings;
  if (settings.mode != Mode::drop || settings.arrivals_per_merge > 0) return std::nullopt;
  if (static_cast<std::int32_t>(there.size()) < settings.needed()) return std::nullopt;
  const std::string count = detail::describe(there.size(), " of ", settings.slots(), " contributions came");
  // Whoever was not waited for before, and has no holder still, has nothing on its way.
  std::int32_t hopeless = 0;
  for (std::int32_t k = 0; k < settings.slots(); ++k) {
    const bool came = std::any_of(there.begin(), there.end(),
                                  [&](const StagedRecord& c) { return c.key.slot == SlotId{k}; });
    if (!came && s_.ledger.slot(SlotId{k}).behind && !is_held(SlotId{k})) ++hopeless;
  }
  if (static_cast<std::int32_t>(there.size()) + hopeless == settings.slots())
    return count + ", and nobody holds the other slots since an earlier merge";
  const State::Fragment& state = s_.fragments[fragment.value];
  if (!state.quorum_at || now_ < drop_deadline(s_, state)) return std::nullopt;
  return detail::describe(count, ", and the others had ", format_duration(seconds(now_ - *state.quorum_at)),
                          " more after the quorum of ", settings.needed());
}

/// Writes into the record who is not there, which slices that leaves without a contribution, and why.
void Step::name_the_absent(SealedRecord& sealed) {
  for (std::int32_t k = 0; k < s_.settings.slots(); ++k) {
    if (!is_in(sealed, SlotId{k})) sealed.left_out.push_back(SlotId{k});
  }
  if (sealed.left_out.empty()) return;
  sealed.held = held_by(sealed);
  sealed.reason = why_without_others(sealed.fragment, sealed.contributions).value_or("");
}

std::vector<HeldSlice> Step::held_by(const SealedRecord& sealed) const {
  std::vector<HeldSlice> held;
  if (!s_.settings.slices) return held;
  for (const Slice& slice : s_.settings.slices(sealed.fragment, sealed.version)) {
    bool owned = false, covered = false;
    for (std::int32_t k = 0; k < s_.settings.slots(); ++k) {
      if (!owns(s_.settings.owned(SlotId{k}, sealed.version), slice)) continue;
      owned = true;
      covered |= is_in(sealed, SlotId{k});
    }
    if (!owned || covered) continue;
    held.push_back({slice.name, 1 + merges_held(s_.ledger.fragment(sealed.fragment).held, slice.name)});
  }
  return held;
}

/// Says aloud what the sealed record holds, and which slices have contributions again.
void Step::alarm_about(const SealedRecord& sealed, const std::vector<HeldSlice>& held_before) {
  const std::string version = detail::describe("version ", sealed.version.value + 1);
  if (!sealed.left_out.empty()) {
    std::vector<std::string> slots;
    for (SlotId slot : sealed.left_out) slots.push_back(detail::describe(slot));
    note(version + " closes without slot" + (slots.size() > 1 ? "s " : " ") + join(slots, ", ") + ": " +
             sealed.reason,
         true);
  }
  ByMerges held, back;
  for (const HeldSlice& slice : sealed.held) held[slice.merges].push_back(slice.name);
  for (const HeldSlice& slice : held_before) {
    if (merges_held(sealed.held, slice.name) == 0) back[slice.merges].push_back(slice.name);
  }
  for (const auto& [merges, names] : held) {
    note(
        detail::describe(version, ": no owner of ", listed(names),
                         " contributes; parameters and outer state are held (merges in a row: ", merges, ")"),
        true);
  }
  for (const auto& [merges, names] : back) {
    note(detail::describe(version, ": owners of ", listed(names),
                          " contribute again (merges without them: ", merges, ")"));
  }
}

}  // namespace tessera
