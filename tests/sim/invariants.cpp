#include "tests/sim/invariants.h"

#include <algorithm>

#include "comm/hash.h"

namespace tessera::sim {

Invariants::Invariants(CoordinatorSettings settings, std::int32_t fragments)
    : settings_(std::move(settings)) {
  for (std::int32_t f = 0; f < fragments; ++f) {
    replayed_[FragmentId{f}] = initial_fragment(FragmentId{f}, settings_.slots());
    history_[FragmentId{f}] = {replayed_[FragmentId{f}].theta};
    chains_[FragmentId{f}] = {chain_digest({}, state_of(replayed_[FragmentId{f}]), {})};
  }
}

void Invariants::fail(const std::string& what) {
  if (failure_.empty()) failure_ = what;
}

// ---- the log ----

void Invariants::appended(const Record& record, const Ledger&) {
  if (const auto* sealed = std::get_if<SealedRecord>(&record)) {
    check_seal(*sealed);
    sealed_[sealed->fragment] = *sealed;
  } else if (const auto* commit = std::get_if<CommitRecord>(&record)) {
    check_commit(*commit, sealed_[commit->fragment]);
  }
}

void Invariants::check_seal(const SealedRecord& sealed) {
  const std::string where =
      detail::describe("merge of fragment ", sealed.fragment, " version ", sealed.version.value + 1);
  if (sealed.version.value + 1 != static_cast<std::int64_t>(chains_[sealed.fragment].size())) {
    fail("I1: " + where + " sealed out of order");
  }
  std::set<SlotId> slots;
  SlotId previous{-1};
  for (const StagedRecord& c : sealed.contributions) {
    if (!slots.insert(c.key.slot).second)
      fail(detail::describe("I2: slot ", c.key.slot, " twice in the ", where));
    if (c.key.slot < previous) fail("I5: the " + where + " is not in slot order");
    previous = c.key.slot;
  }
  const bool all = static_cast<std::int32_t>(slots.size()) == settings_.slots();
  if (settings_.arrivals_per_merge == 0 && settings_.mode == Mode::exact && !all)
    fail("I5: exact mode left somebody out");
  if (settings_.mode == Mode::drop && static_cast<std::int32_t>(slots.size()) < settings_.needed()) {
    fail("I6: a merge closed without its quorum");
  }
  if (settings_.arrivals_per_merge == 0) check_absent(sealed);
}

/// A partial merge never looks like a full one: its record names all who were left out, why, and every slice
/// that nobody brought with the number of merges in a row. In the toy, slot k alone owns slice "own k".
void Invariants::check_absent(const SealedRecord& sealed) {
  const std::string where =
      detail::describe("merge of fragment ", sealed.fragment, " version ", sealed.version.value + 1);
  std::vector<SlotId> absent;
  std::vector<HeldSlice> held;
  for (SlotId k{0}; k.value < settings_.slots(); ++k.value) {
    std::int64_t& merges = absent_[{sealed.fragment, k}];
    const bool there = std::any_of(sealed.contributions.begin(), sealed.contributions.end(),
                                   [&](const StagedRecord& c) { return c.key.slot == k; });
    merges = there ? 0 : merges + 1;
    if (there) continue;
    absent.push_back(k);
    held.push_back({detail::describe("own ", k), merges});
  }
  if (sealed.left_out != absent) fail("I10: the " + where + " does not name who was left out");
  if (sealed.held != held) fail("I10: the " + where + " does not name the slices that are held");
  if (sealed.reason.empty() != absent.empty()) fail("I10: the " + where + " does not say why it closes");
}

void Invariants::merged(const SealedRecord& sealed, const ToyFragment& before, const ToyFragment& after) {
  for (std::int32_t k = 0; k < settings_.slots(); ++k) {
    const bool there = std::any_of(sealed.contributions.begin(), sealed.contributions.end(),
                                   [&](const StagedRecord& c) { return c.key.slot.value == k; });
    if (there || (before.theta[k] == after.theta[k] && before.momentum[k] == after.momentum[k])) continue;
    fail(detail::describe("I10: slot ", k, " was left out of version ", sealed.version.value + 1,
                          ", and its slice moved"));
  }
}

void Invariants::row(const CommitRecord& commit) {
  const std::size_t seen = static_cast<std::size_t>(commit.totals.contributions) + commit.left_out.size();
  if (settings_.arrivals_per_merge == 0 && seen != static_cast<std::size_t>(settings_.slots()))
    fail(detail::describe("I10: the row of version ", commit.version, " does not show who was left out"));
}

void Invariants::check_commit(const CommitRecord& commit, const SealedRecord& sealed) {
  const FragmentId f = commit.fragment;
  const std::string where = detail::describe("fragment ", f, " version ", commit.version);
  if (commit.version.value != static_cast<std::int64_t>(chains_[f].size())) {
    return fail("I1: " + where + " committed out of order or twice");
  }
  if (sealed.version.value + 1 != commit.version.value)
    return fail("I2: " + where + " was committed without being sealed");
  if (commit.left_out != sealed.left_out || commit.held != sealed.held)
    fail("I10: the commit of " + where + " does not say what its seal said");
  std::vector<ToyContribution> contributions;
  for (const StagedRecord& c : sealed.contributions) {
    if (!applied_.insert({c.key.slot, f, c.key.version}).second) {
      fail(detail::describe("I2: the contribution of slot ", c.key.slot, " from version ", c.key.version,
                            " of ", where, " was applied twice"));
    }
    if (!settings_.any_version() && c.key.version != sealed.version)
      fail("I4: a stale contribution is in " + where);
    auto made = made_.find(c.digest);
    if (made == made_.end()) return fail("a contribution that nobody made is in " + where);
    if (made->second.slot != c.key.slot) fail("a contribution of another slot is in " + where);
    const std::int64_t own = settings_.owned(c.key.slot, c.key.version).at("w").front().begin;
    if (made->second.coordinate != static_cast<std::size_t>(own))
      fail("a contribution of what the slot did not own is in " + where);
    // I12: a slot takes as many steps as it was given.
    if (settings_.dynamic &&
        (c.work.steps < 1 || static_cast<std::int64_t>(c.work.steps) > settings_.dynamic->all))
      fail(detail::describe("I12: slot ", c.key.slot, " took ", c.work.steps, " steps for ", where));
    if (settings_.dynamic && static_cast<std::int64_t>(c.work.steps) < settings_.dynamic->all) ++shortened_;
    // I11: its change is counted from the version that it names, whatever happened to the slot meanwhile.
    const Coordinates& start = history_[f][static_cast<std::size_t>(c.key.version.value)];
    if (made->second.own_start != start[made->second.coordinate] || made->second.shared_start != start.back())
      fail(detail::describe("I11: slot ", c.key.slot, "'s change in ", where, " is not from version ",
                            c.key.version));
    if (!made->second.finite) fail("a contribution that is not finite is in " + where);
    contributions.push_back(made->second);
    std::uint64_t& sample = sample_[{c.key.slot, f}];
    // A slot that starts fresh in the middle of a run (never contributed, or its state lost) begins where the
    // others are.
    const bool may_skip = settings_.mode == Mode::drop || settings_.arrivals_per_merge > 0;
    const bool contiguous = may_skip ? c.work.first_sample >= sample : c.work.first_sample == sample;
    if (f.value == 0 && !contiguous && chains_.size() == 1) {
      fail(detail::describe("I8: slot ", c.key.slot, " skipped or repeated samples before ", where, ": [",
                            c.work.first_sample, ", ", c.work.end_sample, ") after ", sample));
    }
    sample = c.work.end_sample;
  }
  // I5: the log, replayed with merges of our own, gives the same state and chain.
  replayed_[f] = merge(replayed_[f], contributions, settings_.takes_late);
  history_[f].push_back(replayed_[f].theta);
  if (state_of(replayed_[f]) != commit.state) fail("I5: the state of " + where + " is not what its log says");
  const Digest chain = chain_digest(chains_[f].back(), commit.state, sealed.contributions);
  if (chain != commit.chain) fail("I5: the state hash of " + where + " does not follow from the one before");
  chains_[f].push_back(chain);
}

// ---- the coordinator ----

void Invariants::check_head(const FragmentHead& head, const Ledger& log) {
  const FragmentLedger& fragment = log.fragment(head.fragment);
  if (head.version > fragment.version || chains_[head.fragment][head.version.value] != head.state_hash) {
    fail(detail::describe("I1: fragment ", head.fragment, " version ", head.version,
                          " was announced before it was durable"));
  }
}

void Invariants::coordinator_sent(const Message& message, const Ledger& log) {
  if (const auto* publish = std::get_if<Publish>(&message)) {
    check_head(publish->head, log);
  } else if (const auto* grant = std::get_if<Grant>(&message)) {
    for (const FragmentHead& head : grant->heads) check_head(head, log);
    if (log.slot(grant->slot).attempt < grant->attempt) fail("a lease was granted before it was durable");
  } else if (const auto* taken = std::get_if<Taken>(&message)) {
    const SlotLedger::Given& given = log.slot(taken->key.slot).given[taken->key.fragment.value];
    if (given.version < taken->key.version) {
      fail(detail::describe("I1: slot ", taken->key.slot,
                            "'s contribution was acknowledged before it was durable"));
    }
  }
}

void Invariants::merging(const SealedRecord& sealed, const Ledger& log) {
  if (log.fragment(sealed.fragment).sealed != sealed) fail("I1: a merge began before it was sealed");
}

void Invariants::settled(const State& state, const Ledger& log) {
  if (!(state.ledger == log)) fail("I1: the coordinator believes what its log does not say");
}

bool Invariants::is_stale(const event::Arrived& event, const State& state) const {
  const Header& header = event.header;
  if (std::holds_alternative<Hello>(event.message))
    return !header.job.is_zero() && header.job != settings_.job;
  if (header.job != settings_.job || header.epoch < state.epoch) return true;
  const auto* offer = std::get_if<Offer>(&event.message);
  if (!offer || header.epoch > state.epoch) return false;
  const SlotLedger& slot = state.ledger.slot(offer->key.slot);
  if (slot.holder != header.incarnation || slot.attempt != offer->key.attempt) return true;
  const Version head = state.version(offer->key.fragment);
  const SlotLedger::Given& given = slot.given[offer->key.fragment.value];
  if (offer->key.version <= given.version || offer->key.version > head) return true;
  // Drop mode hears of a slot that was left out, and leases it again.
  return !settings_.any_version() && settings_.mode == Mode::exact && offer->key.version != head;
}

void Invariants::after_stale(const event::Arrived& event, const Ledger& before, const State& state,
                             const Decision& decision) {
  const bool fetches = std::any_of(decision.actions.begin(), decision.actions.end(),
                                   [](const Action& a) { return std::holds_alternative<action::Fetch>(a); });
  const auto* offer = std::get_if<Offer>(&event.message);
  const bool alarm = offer && state.ledger.slot(offer->key.slot).rejected == offer->contribution.digest;
  if ((fetches || !(state.ledger == before)) && !alarm) {
    fail(detail::describe("I4: a stale ", message_name(event.message), " changed something (",
                          decision.reason, ")"));
  }
}

void Invariants::adopted(const FragmentHead& head, const Coordinates& theta) {
  auto [seen, is_new] = adopted_.try_emplace({head.fragment, head.version}, digest_of(theta));
  if (!is_new && seen->second != digest_of(theta)) {
    fail(detail::describe("I3: two workers adopted different parameters as version ", head.version));
  }
}

void Invariants::bounded(const State& state, std::size_t offered) {
  const std::size_t slots = settings_.slots(), fragments = state.fragments.size();
  std::size_t staged = 0;
  for (const FragmentLedger& fragment : state.ledger.fragments) staged += fragment.staged.size();
  const std::size_t stay =
      settings_.arrivals_per_merge > 0 ? slots : 0;  // versions that may be fetched still
  if (state.pending.size() > slots || staged > slots * fragments || offered > 2 * fragments + stay) {
    fail(detail::describe("I7: the coordinator holds more than it may: ", state.pending.size(), " pending, ",
                          staged, " staged, ", offered, " offered"));
  }
}

}  // namespace tessera::sim
