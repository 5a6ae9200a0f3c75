// Slots that keep clocks of their own (methods async, decoupled): contributions that come after their merge,
// and how many steps a slot is given.
#include <algorithm>
#include <cmath>
#include <limits>

#include "coordinator/step.h"

namespace tessera {

Duration grace_of(const GraceWindow& window, const std::vector<StagedEntry>& there, Duration quorum_took,
                  Duration merge_took) {
  double step = std::numeric_limits<double>::infinity();
  for (const StagedEntry& entry : there) {
    const Work& work = entry.record.work;
    if (work.steps > 0) step = std::min(step, work.compute_seconds / static_cast<double>(work.steps));
  }
  if (!std::isfinite(step)) step = 0;
  const double slack = static_cast<double>(window.steps) * step - seconds(quorum_took) - seconds(merge_took);
  return from_seconds(std::clamp(window.share * slack, 0.0, window.cap));
}

/// Whether a contribution that was taken is in no committed version yet.
bool Step::waits_for_merge(const MergeKey& key) const {
  const FragmentLedger& ledger = s_.ledger.fragment(key.fragment);
  const auto is_it = [&](const StagedRecord& c) {
    return c.key.slot == key.slot && c.key.version == key.version;
  };
  const bool sealed = ledger.sealed && std::any_of(ledger.sealed->contributions.begin(),
                                                   ledger.sealed->contributions.end(), is_it);
  return sealed || std::any_of(ledger.staged.begin(), ledger.staged.end(),
                               [&](const StagedEntry& entry) { return is_it(entry.record); });
}

/// The slots whose work a new version is go on from it, or from a newer one.
void Step::tell_what_is_merged(const SealedRecord& sealed) {
  for (const StagedRecord& contribution : sealed.contributions)
    send(s_.ledger.slot(contribution.key.slot).holder,
         Taken{contribution.key, contribution.digest, steps_of(contribution.key.slot)});
}

/// Where every contribution makes a version, a slot that fetches one may be overtaken: it has until all slots
/// have brought another on average.
void Step::retire(FragmentId fragment, Version old) {
  const std::int64_t stay = s_.settings.arrivals_per_merge > 0 ? s_.settings.slots() : 0;
  if (old.value - stay >= 0) emit(action::Retire{fragment, Version{old.value - stay}});
}

/// Whether what starts from a version brings the slot's state: a checkpoint is made with it. Where it may be
/// merged later than that, any may be the slot's last one before a checkpoint.
bool Step::brings_state(Version from) const {
  return s_.settings.any_version() || s_.settings.checkpoint_due(Version{from.value + 1});
}

/// A merge did without the slot, whose attempt's work is in vain since: not where the next one takes it.
bool Step::must_come_back(SlotId slot) const {
  return s_.ledger.slot(slot).behind && !s_.settings.takes_late;
}

/// Steps of a slot's next contribution, so that all slots bring equally often: by the step times in the log,
/// and by how many slots take turns on its worker (arXiv 2401.09135, dynamic local updates).
std::int64_t Step::steps_of(SlotId id) const {
  if (!s_.settings.dynamic) return 0;
  const auto pace = [&](SlotId slot) {
    const SlotLedger& known = s_.ledger.slot(slot);
    return known.step_seconds * static_cast<double>(slots_of(known.holder).size());
  };
  double quickest = std::numeric_limits<double>::infinity();
  for (SlotId slot{0}; slot.value < s_.settings.slots(); ++slot.value) {
    if (is_held(slot) && pace(slot) > 0) quickest = std::min(quickest, pace(slot));
  }
  const auto [all, least] = *s_.settings.dynamic;
  if (pace(id) <= quickest) return all;  // or not known
  return std::clamp(static_cast<std::int64_t>(std::floor(static_cast<double>(all) * quickest / pace(id))),
                    least, all);
}

}  // namespace tessera
