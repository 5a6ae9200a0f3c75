// The way of a contribution into a version: offered, fetched, staged and acknowledged, sealed, merged,
// committed, published.
#include <algorithm>

#include "coordinator/step.h"

namespace tessera {
namespace {

MergeTotals totals_of(const SealedRecord& sealed, const event::Merged& merged, double round_seconds) {
  MergeTotals totals;
  totals.contributions = static_cast<std::int32_t>(sealed.contributions.size());
  totals.round_seconds = round_seconds;
  totals.merge_seconds = merged.seconds;
  totals.uncovered = merged.uncovered;
  totals.delta_norm = merged.delta_norm;
  totals.outer = merged.outer;
  double grad_norms = 0;
  for (const StagedRecord& contribution : sealed.contributions) {
    const Work& work = contribution.work;
    totals.bytes_up += contribution.size;
    totals.work.steps += work.steps;
    totals.work.units += work.units;
    totals.work.loss_sum += work.loss_sum;
    totals.work.loss_weight += work.loss_weight;
    totals.work.compute_seconds += work.compute_seconds;
    totals.work.encode_seconds += work.encode_seconds;
    totals.work.wait_seconds += work.wait_seconds;
    totals.work.flops += work.flops;
    totals.work.flops_uncut += work.flops_uncut;
    grad_norms += work.grad_norm;
  }
  totals.work.grad_norm = totals.contributions > 0 ? grad_norms / totals.contributions : 0;
  return totals;
}

}  // namespace

// ---- offers ----

void Step::on(const From& from, const Offer& offer) {
  if (!is_offer_of_holder(from, offer)) return;
  if (was_given(from, offer) || !fits_version(offer.key)) return;
  auto pending = s_.pending.find(offer.key.slot);
  if (pending != s_.pending.end()) {
    const Offer& before = pending->second.offer;
    const bool other = before.key == offer.key && before.contribution.digest != offer.contribution.digest;
    if (other && s_.settings.rules.alarm_on_other_digest) return alarm(from, offer);
    return;  // the repetition of one that is on its way
  }
  const std::vector<StagedEntry>& staged = s_.ledger.fragment(offer.key.fragment).staged;
  const bool waits = s_.settings.rules.deduplicate &&
                     std::any_of(staged.begin(), staged.end(),
                                 [&](const StagedEntry& e) { return e.record.key.slot == offer.key.slot; });
  if (waits)
    return because("the slot's previous contribution is not merged yet");  // the worker repeats its offer
  s_.pending[offer.key.slot] = {offer, from.peer};
  because(detail::describe("fetching slot ", offer.key.slot, "'s contribution to version ",
                           offer.key.version.value + 1));
  emit(action::Fetch{from.peer, offer});
}

bool Step::is_offer_of_holder(const From& from, const Offer& offer) {
  const MergeKey& key = offer.key;
  const auto fragments = static_cast<std::int32_t>(s_.fragments.size());
  if (key.slot.value < 0 || key.slot.value >= s_.settings.slots() || key.fragment.value < 0 ||
      key.fragment.value >= fragments || key.version.value < 0) {
    stale("malformed");
    return false;
  }
  const SlotLedger& slot = s_.ledger.slot(key.slot);
  if (s_.settings.rules.check_holder && slot.holder != from.incarnation) {
    stale("holder");
    emit(action::Send{from.peer, Revoke{key.slot, key.attempt}});
    return false;
  }
  if (s_.settings.rules.check_attempt && slot.attempt != key.attempt) {
    stale("attempt");
    return false;
  }
  return true;
}

/// The slot's contribution from this version is staged or merged already: acknowledge it again, or raise the
/// alarm.
bool Step::was_given(const From& from, const Offer& offer) {
  const SlotLedger::Given& given = s_.ledger.slot(offer.key.slot).given[offer.key.fragment.value];
  if (!s_.settings.rules.deduplicate || given.version != offer.key.version) return false;
  // A slot that began anew, its state lost, cannot make the same again: what was taken stands.
  const bool fresh = s_.ledger.slot(offer.key.slot).state.is_zero();
  if (given.digest != offer.contribution.digest && !fresh && s_.settings.rules.alarm_on_other_digest) {
    alarm(from, offer);
    return true;
  }
  if (s_.settings.arrivals_per_merge > 0 && waits_for_merge(offer.key)) {
    because("it is being merged");  // the slot goes on from a version that holds it
    return true;
  }
  because("already taken");
  emit(action::Send{from.peer, Taken{offer.key, offer.contribution.digest, steps_of(offer.key.slot)}});
  return true;
}

bool Step::fits_version(const MergeKey& key) {
  if (!s_.settings.rules.check_version) return true;
  const Version head = s_.version(key.fragment);
  const SlotLedger::Given& given = s_.ledger.slot(key.slot).given[key.fragment.value];
  const bool any_version = s_.settings.any_version();
  const bool fits = key.version > given.version && (any_version ? key.version <= head : key.version == head);
  const bool closed = !any_version && s_.fragments[key.fragment.value].merging;  // sealed without it
  if (fits && !closed && head < s_.settings.rounds) return true;
  stale("version");
  if (!any_version && key.version > given.version && key.version < head) {
    lease_again(key.slot, "its contribution came too late");  // left out: it goes on from its last good state
  }
  return false;
}

/// The same identity with other bytes: nondeterminism or bad hardware. What was taken stands; the slot goes
/// back to it.
void Step::alarm(const From& from, const Offer& offer) {
  const std::string reason =
      detail::describe("slot ", offer.key.slot, " brought two different contributions from version ",
                       offer.key.version, ": nondeterminism or bad hardware");
  append(RejectedRecord{offer.key, offer.contribution.digest, "", reason});
  note(reason, true);
  emit(action::Count{action::Count::What::rejected, "other digest"});
  lease_again(offer.key.slot, "it brought two different contributions");
  emit(action::Send{from.peer, Rejected{offer.key, "", reason, true}});
}

void Step::fetched(const event::Fetched& event) {
  auto found = s_.pending.find(event.key.slot);
  if (found == s_.pending.end() || found->second.offer.key != event.key ||
      found->second.offer.contribution.digest != event.digest) {
    stale("fetched");  // the slot was leased again meanwhile
    return;
  }
  const State::Pending pending = found->second;
  s_.pending.erase(found);
  if (s_.ending) return;
  switch (event.outcome) {
    case event::Fetched::Outcome::unreachable:
      because("could not fetch it: " + event.reason);  // the worker repeats its offer
      return;
    case event::Fetched::Outcome::refused:
      return reject(pending, event.tensor, event.reason);
    case event::Fetched::Outcome::good:
      return stage(pending);
  }
}

void Step::reject(const State::Pending& pending, const std::string& tensor, const std::string& reason) {
  const MergeKey& key = pending.offer.key;
  const SlotLedger& slot = s_.ledger.slot(key.slot);
  const bool same_again =
      slot.rejected == pending.offer.contribution.digest && slot.rejected_attempt != key.attempt;
  const std::string where =
      detail::describe("slot ", key.slot, tensor.empty() ? "" : ", tensor ", tensor, ": ", reason);
  append(RejectedRecord{key, pending.offer.contribution.digest, tensor, reason});
  emit(action::Count{action::Count::What::rejected, "contribution"});
  note("rejected a contribution of " + where, true);
  if (same_again) {
    return stop(ExitCode::failed,
                "the same contribution was refused twice, so the model is the problem: " + where);
  }
  if (slot.rejections >= 3) {
    return stop(ExitCode::failed, "three contributions in a row were refused: " + where);
  }
  // The new attempt is on record before the worker drops what it has: nobody else would make it again.
  lease_again(key.slot, "its contribution was refused: " + where);
  emit(action::Send{pending.peer, Rejected{key, tensor, reason, true}});
}

void Step::stage(const State::Pending& pending) {
  const Offer& offer = pending.offer;
  const Taken taken{offer.key, offer.contribution.digest, steps_of(offer.key.slot)};
  const StagedRecord record{offer.key, offer.contribution.digest, offer.contribution.size, offer.slot_state,
                            offer.work};
  if (!s_.settings.rules.stage_before_taken) emit(action::Send{pending.peer, taken});
  emit(action::Stage{offer.key, offer.contribution.digest});
  append(record);
  s_.failed_grants.erase(offer.key.slot);
  // Where every contribution makes a version, the slot hears of it with that version: merged().
  if (s_.settings.rules.stage_before_taken && s_.settings.arrivals_per_merge == 0)
    emit(action::Send{pending.peer, taken});
  because(detail::describe(
      "slot ", offer.key.slot, "'s contribution to version ", offer.key.version.value + 1, " taken, ",
      s_.ledger.fragment(offer.key.fragment).staged.size(), " of ", s_.settings.slots()));
  try_close(offer.key.fragment);
}

// ---- closing a merge ----

/// The contributions that close the merge now; none: it stays open.
std::vector<StagedRecord> Step::chosen(FragmentId fragment) const {
  const CoordinatorSettings& settings = s_.settings;
  std::vector<StagedRecord> chosen;
  for (const StagedEntry& entry : s_.ledger.fragment(fragment).staged) {
    const bool again =
        settings.rules.deduplicate && std::any_of(chosen.begin(), chosen.end(), [&](const StagedRecord& c) {
          return c.key.slot == entry.record.key.slot;
        });
    if (again) continue;
    chosen.push_back(entry.record);
    if (settings.arrivals_per_merge > 0 &&
        static_cast<std::int32_t>(chosen.size()) == settings.arrivals_per_merge)
      break;
  }
  const auto count = static_cast<std::int32_t>(chosen.size());
  const std::int32_t wanted =
      settings.arrivals_per_merge > 0 ? settings.arrivals_per_merge : settings.slots();
  const bool enough = count >= wanted || (!settings.rules.wait_for_all && count > 0);
  if (!enough && !why_without_others(fragment, chosen)) return {};
  if (settings.rules.slot_order) {
    std::sort(chosen.begin(), chosen.end(),
              [](const StagedRecord& a, const StagedRecord& b) { return a.key.slot < b.key.slot; });
  }
  return chosen;
}

void Step::try_close(FragmentId fragment) {
  State::Fragment& state = s_.fragments[fragment.value];
  const FragmentLedger& ledger = s_.ledger.fragment(fragment);
  if (s_.ending || s_.finished || state.merging || ledger.version >= s_.settings.rounds) return;
  if (!state.first_at && !ledger.staged.empty()) state.first_at = now_;
  if (!state.quorum_at && static_cast<std::int32_t>(ledger.staged.size()) >= s_.settings.needed()) {
    state.quorum_at = now_;
    if (s_.settings.window)
      state.wait = grace_of(*s_.settings.window, ledger.staged, now_ - *state.first_at, state.merge_took);
  }
  // While a version waits for its evaluation nothing else is merged: what is evaluated are the parameters of
  // that moment, whoever has to do it.
  if (s_.ledger.fragment(s_.last_fragment()).unrated) return;
  std::vector<StagedRecord> contributions = chosen(fragment);
  if (!contributions.empty()) close(fragment, std::move(contributions));
}

void Step::try_close_all() {
  for (std::size_t f = 0; f < s_.fragments.size(); ++f) try_close(FragmentId{static_cast<std::int32_t>(f)});
}

void Step::close(FragmentId fragment, std::vector<StagedRecord> contributions) {
  SealedRecord sealed{fragment, s_.version(fragment), std::move(contributions), {}, {}, {}};
  const std::vector<HeldSlice> held_before = s_.ledger.fragment(fragment).held;
  if (s_.settings.arrivals_per_merge == 0 && s_.settings.rules.name_the_absent) name_the_absent(sealed);
  for (SlotId slot : sealed.left_out) {
    auto pending = s_.pending.find(slot);
    if (pending != s_.pending.end() && pending->second.offer.key.fragment == fragment)
      s_.pending.erase(pending);
  }
  because(detail::describe("version ", sealed.version.value + 1, " sealed with ", sealed.contributions.size(),
                           " contributions, ", sealed.left_out.size(), " left out"));
  if (s_.settings.rules.seal_before_merge) {
    append(sealed);
  } else {
    s_.ledger.apply(sealed);
  }
  alarm_about(sealed, held_before);
  s_.fragments[fragment.value].merging = true;
  s_.fragments[fragment.value].sealed_at = now_;
  emit(action::Merge{std::move(sealed)});
}

void Step::merged(const event::Merged& event) {
  State::Fragment& state = s_.fragments[event.fragment.value];
  const FragmentLedger& ledger = s_.ledger.fragment(event.fragment);
  if (!state.merging || !ledger.sealed || event.version.value != ledger.version.value + 1)
    return stale("merged");
  const SealedRecord sealed = *ledger.sealed;
  const FragmentHead old = state.head;
  CommitRecord commit{event.fragment,  event.version,
                      event.state,     chain_digest(ledger.chain, event.state, sealed.contributions),
                      false,           {},
                      sealed.left_out, sealed.held};
  commit.evaluate = event.fragment == s_.last_fragment() && s_.settings.evaluation_due(event.version);
  commit.totals = totals_of(sealed, event, seconds(now_ - state.opened));
  for (const StagedRecord& contribution : sealed.contributions) {
    if (s_.settings.any_version())
      commit.totals.staleness.push_back(sealed.version.value - contribution.key.version.value);
  }
  state = State::Fragment{
      .head = {event.fragment, event.version, event.parameters, commit.chain, event.fast, event.update},
      .opened = now_,
      .merge_took = now_ - state.sealed_at};
  std::set<Incarnation> holders;
  for (const SlotLedger& slot : s_.ledger.slots) {
    if (s_.members.serving(slot.holder)) holders.insert(slot.holder);
  }
  const std::uint64_t fast = event.fast && s_.settings.fast_for_all ? event.fast->size : 0;
  const std::uint64_t parameters = event.update ? event.update->blob.size : event.parameters.size;
  commit.totals.bytes_down = (parameters + fast) * holders.size();
  // Of versions that are single contributions, everybody takes one after its own, as a whole.
  if (s_.settings.arrivals_per_merge > 0)
    commit.totals.bytes_down = event.parameters.size * sealed.contributions.size();
  const std::size_t before = out_.actions.size();
  append(commit);
  because(detail::describe("version ", event.version, " committed"));
  publish(event.fragment);
  if (!s_.settings.rules.commit_before_publish) {
    std::rotate(out_.actions.begin() + before, out_.actions.begin() + before + 1, out_.actions.end());
  }
  if (!commit.evaluate) emit(action::Row{commit, std::nullopt});
  if (event.fragment == s_.last_fragment() && s_.settings.checkpoint_due(event.version)) {
    emit(action::Checkpoint{event.fragment, event.version});
  }
  if (s_.settings.arrivals_per_merge > 0) tell_what_is_merged(sealed);
  emit(action::Discard{sealed.contributions});
  retire(event.fragment, old.version);
  // A slot whose holder is gone waits for it, or for somebody with room (bring_up_to_date(), assign()).
  for (SlotId slot : sealed.left_out) {
    if (is_held(slot) && must_come_back(slot))
      lease_again(slot, detail::describe("it was left out of version ", event.version));
  }
  try_close(event.fragment);
  finish_if_done();
}

// ---- publishing and evaluating ----

void Step::publish(FragmentId fragment) {
  std::set<Incarnation> told;
  for (std::int32_t k = 0; k < s_.settings.slots(); ++k) {
    const Incarnation& holder = s_.ledger.slot(SlotId{k}).holder;
    if (!s_.members.serving(holder) || !told.insert(holder).second) continue;
    send(holder, publication(fragment, holder));
  }
}

Publish Step::publication(FragmentId fragment, const Incarnation& to) const {
  Publish publish;
  publish.head = s_.fragments[fragment.value].head;
  publish.last = publish.head.version >= s_.settings.rounds;
  publish.evaluate = wants_evaluation(fragment, to);
  publish.save_state = brings_state(publish.head.version);
  return publish;
}

bool Step::wants_evaluation(FragmentId fragment, const Incarnation& from) const {
  return s_.ledger.fragment(fragment).unrated && evaluator() == from;
}

void Step::on(const From& from, const Evaluated& evaluated) {
  const FragmentLedger& ledger = s_.ledger.fragment(s_.last_fragment());
  if (!ledger.unrated || ledger.unrated->version != evaluated.version) return stale("evaluated");
  const CommitRecord commit = *ledger.unrated;
  append(EvaluatedRecord{evaluated});
  emit(action::Row{commit, evaluated});
  because(detail::describe("version ", evaluated.version, " evaluated"));
  try_close_all();
  finish_if_done();
}

}  // namespace tessera
