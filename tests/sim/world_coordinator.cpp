// The coordinator's half of the simulated world: what a shell does for decide().
#include "tests/sim/world.h"

namespace tessera::sim {
namespace {

const char* kind_of(const Event& event) {
  if (const auto* arrived = std::get_if<event::Arrived>(&event)) return message_name(arrived->message);
  if (std::holds_alternative<event::Start>(event)) return "Start";
  if (std::holds_alternative<event::Fetched>(event)) return "Fetched";
  if (std::holds_alternative<event::Merged>(event)) return "Merged";
  if (std::holds_alternative<event::Tick>(event)) return "Tick";
  if (std::holds_alternative<event::WorkerDied>(event)) return "WorkerDied";
  return "Drain";
}

const char* kind_of(const Action& action) {
  static constexpr const char* names[] = {"Append", "Send",       "Fetch",   "Stage", "Merge", "Retire",
                                          "Row",    "Checkpoint", "Discard", "Count", "Note",  "Finish"};
  return names[action.index()];
}

}  // namespace

void World::start_coordinator() {
  if (done_) return;
  auto c = std::make_shared<CoordinatorProcess>();
  c->incarnation = {9, ++incarnations_};
  disk_.newest_epoch.value += 1;
  event::Start start{disk_.newest_epoch, {}, {}};
  Ledger ledger = recover();
  for (std::uint64_t f = 0; f < fragments(); ++f) {
    const FragmentId fragment{static_cast<std::int32_t>(f)};
    const Version version = ledger.fragment(fragment).version;
    auto found = disk_.committed[fragment].find(version);
    if (found == disk_.committed[fragment].end())
      return invariants_.fail("I1: the committed parameters are not on disk");
    c->offered[{fragment, version}] = found->second.theta;
    const Digest digest = digest_of(found->second.theta);
    start.heads.push_back({fragment, version, BlobRef{digest, 8, ""}, ledger.fragment(fragment).chain});
    for (const StagedEntry& entry : ledger.fragment(fragment).staged) {
      if (!disk_.staged.contains(entry.record.digest)) start.missing.push_back(entry.record.digest);
    }
  }
  reconcile_rows();
  c->state = State(settings_, std::move(ledger));
  coordinator_ = c;
  feed(c, start);
}

/// The fold of the log; bit rot may have taken a staged file that its slot can make again.
Ledger World::recover() {
  Ledger ledger = disk_.ledger;
  for (FragmentLedger& fragment : ledger.fragments) {
    for (const StagedEntry& entry : fragment.staged) {
      if (chance(faults_.rot) && ledger.can_take_back(entry)) disk_.staged.erase(entry.record.digest);
    }
    if (scenario_.forget_staged) fragment.staged.clear();
  }
  return ledger;
}

void World::reconcile_rows() {
  for (const Record& record : disk_.log) {
    const auto* commit = std::get_if<CommitRecord>(&record);
    if (!commit) continue;
    const auto& unrated = disk_.ledger.fragment(commit->fragment).unrated;
    if (unrated && unrated->version == commit->version) continue;
    disk_.rows[{commit->fragment, commit->version}] = commit->evaluate;
  }
}

std::string World::context_of(const State& state, const Event& event) const {
  std::string context = kind_of(event);
  for (std::size_t f = 0; f < state.fragments.size(); ++f) {
    const FragmentLedger& ledger = state.ledger.fragments[f];
    const char* phase = state.ending                 ? "ending"
                        : state.fragments[f].merging ? "merging"
                        : ledger.unrated             ? "unrated"
                        : !ledger.staged.empty()     ? "collecting"
                                                     : "open";
    context += std::string(" | ") + phase;
    if (state.ending) break;
  }
  return context;
}

void World::feed(Coordinator c, const Event& event) {
  if (!c->alive || !invariants_.failure().empty()) return;
  if (c->frozen) {
    c->inbox.push_back(event);
    return;
  }
  trace(event.index());
  const std::string context = wants_context() ? context_of(c->state, event) : "";
  const auto* arrived = std::get_if<event::Arrived>(&event);
  const bool stale = arrived && !c->state.finished && invariants_.is_stale(*arrived, c->state);
  const std::optional<Ledger> before = stale ? std::optional(c->state.ledger) : std::nullopt;
  const Decision decision = decide(c->state, event, now_);
  if (scenario_.story) {
    tell("C", c->state.epoch, c == coordinator_ ? "" : " (old)", " ", context_of(c->state, event), ": ",
         decision.reason);
    for (const Action& action : decision.actions) {
      if (const auto* note = std::get_if<action::Note>(&action)) tell("    ", note->text);
    }
  }
  if (stale) {
    outcome_.stale += 1;
    invariants_.after_stale(*arrived, *before, c->state, decision);
  }
  if (!perform_all(c, decision.actions, context)) return;
  if (c == coordinator_) invariants_.settled(c->state, disk_.ledger);
  invariants_.bounded(c->state, c->offered.size());
  schedule_tick(c);
}

/// False: the process is gone, or frozen.
bool World::perform_all(const Coordinator& c, const std::vector<Action>& actions,
                        const std::string& context) {
  for (std::size_t i = 0; i < actions.size(); ++i) {
    if (perform(c, actions[i], context)) continue;
    if (c->frozen) c->interrupted.assign(actions.begin() + i, actions.end());
    return false;
  }
  return true;
}

bool World::perform(const Coordinator& c, const Action& action, const std::string& context) {
  const bool by_chance = scenario_.crash_coordinator_at == outcome_.coordinator_actions++ ||
                         (c == coordinator_ && chance(faults_.coordinator_crash));
  if (crash_here(&Coverage::coordinator, wants_context() ? context + " -> " + kind_of(action) : "",
                 by_chance)) {
    tell("C", c->state.epoch, " crashes before ", kind_of(action));
    crash(c);
    return false;
  }
  trace(100 + action.index());
  if (const auto* append_action = std::get_if<action::Append>(&action)) {
    if (c->state.epoch < disk_.newest_epoch) c->alive = false;  // fenced by the newer epoch file: exit 76
    if (c->alive) append(c, append_action->record);
  } else if (const auto* send = std::get_if<action::Send>(&action)) {
    if (c == coordinator_) invariants_.coordinator_sent(send->message, disk_.ledger);
    to_worker(*c, send->to, send->message);
  } else if (const auto* fetch = std::get_if<action::Fetch>(&action)) {
    fetch_contribution(c, fetch->from, fetch->offer);
  } else if (const auto* stage = std::get_if<action::Stage>(&action)) {
    disk_.staged[stage->digest] = c->fetched.at(stage->digest);
    c->fetched.erase(stage->digest);
  } else if (const auto* merge = std::get_if<action::Merge>(&action)) {
    if (c == coordinator_) invariants_.merging(merge->sealed, disk_.ledger);
    later(between(1, 10), [this, c, sealed = merge->sealed] { do_merge(c, sealed); });
  } else if (const auto* retire = std::get_if<action::Retire>(&action)) {
    c->offered.erase({retire->fragment, retire->version});
  } else if (const auto* row = std::get_if<action::Row>(&action)) {
    if (c == coordinator_) invariants_.row(row->commit);
    disk_.rows[{row->commit.fragment, row->commit.version}] = row->evaluated.has_value();
  } else if (const auto* discard = std::get_if<action::Discard>(&action)) {
    if (c == coordinator_) {
      for (const StagedRecord& record : discard->contributions) disk_.staged.erase(record.digest);
    }
  } else if (const auto* finish = std::get_if<action::Finish>(&action)) {
    c->alive = false;
    if (finish->code == ExitCode::done) {
      done_ = finish->code;
    } else if (c == coordinator_) {
      invariants_.fail(detail::describe("I9: the coordinator ended with ", static_cast<int>(finish->code),
                                        ": ", finish->reason));
    }
  }
  return c->alive;
}

void World::append(const Coordinator&, const Record& record) {
  disk_.log.push_back(record);
  disk_.ledger.apply(record);
  invariants_.appended(record, disk_.ledger);
}

void World::crash(const Coordinator& c) {
  outcome_.coordinator_crashes += 1;
  if (chance(faults_.zombie)) {
    c->frozen = true;
    later(between(100, 2000), [this, c] { thaw(c); });
  } else {
    c->alive = false;
  }
  later(between(5, 300), [this] { start_coordinator(); });
}

/// A coordinator that was frozen and overtaken goes on with what it had; the first write, or the first worker
/// that knows better, ends it.
void World::thaw(const Coordinator& c) {
  c->frozen = false;
  if (!perform_all(c, std::exchange(c->interrupted, {}), "thaw")) return;
  for (const Event& event : std::exchange(c->inbox, {})) feed(c, event);
  if (c->alive) feed(c, event::Tick{});
  later(between(100, 1000), [c] { c->alive = false; });
}

void World::do_merge(const Coordinator& c, const SealedRecord& sealed) {
  if (!c->alive || c->frozen) return;
  if (c->state.epoch < disk_.newest_epoch) {
    c->alive = false;
    return;
  }
  std::vector<ToyContribution> contributions;
  for (const StagedRecord& record : sealed.contributions) {
    auto staged = disk_.staged.find(record.digest);
    if (staged == disk_.staged.end()) return invariants_.fail("I1: a sealed contribution is not on disk");
    contributions.push_back(staged->second);
  }
  std::map<Version, ToyFragment>& committed = disk_.committed[sealed.fragment];
  const Version version{sealed.version.value + 1};
  committed[version] =
      merge(committed.at(sealed.version), contributions, settings_.takes_late, scenario_.toy);
  outcome_.partial += sealed.left_out.empty() ? 0 : 1;
  invariants_.merged(sealed, committed.at(sealed.version), committed[version]);
  while (committed.size() > 2) committed.erase(committed.begin());
  const ToyFragment& made = committed[version];
  c->offered[{sealed.fragment, version}] = made.theta;
  feed(c, event::Merged{sealed.fragment, version, state_of(made), BlobRef{digest_of(made.theta), 8, ""}, 0,
                        0.001});
}

void World::schedule_tick(const Coordinator& c) {
  const Instant at = wake_at(c->state);
  if (at == Instant::max() || (c->tick_at <= at && c->tick_at > now_)) return;
  c->tick_at = at;
  later(std::max(at - now_, Duration{}), [this, c, at] {
    if (c->tick_at != at || !c->alive) return;
    c->tick_at = Instant::max();
    if (now_ >= wake_at(c->state)) {
      feed(c, event::Tick{});
    } else {
      schedule_tick(c);
    }
  });
}

void World::to_worker(const CoordinatorProcess& from, PeerId to, const Message& message) {
  for (const Worker& w : worker_) {
    if (!w || w->incarnation != to || !w->alive || !link_down_[w->index] || chance(faults_.loss)) continue;
    worker_event::Arrived arrived{Header{settings_.job, from.state.epoch, from.incarnation, 0}, message};
    if (!w->job.is_zero() && chance(faults_.alien)) arrived.header.job.low ^= 1;
    const int copies = chance(faults_.duplicate) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      later(delay(), [this, w, arrived] {
        if (link_down_[w->index]) feed(w, WorkerEvent(arrived));
      });
    }
  }
}

void World::fetch_contribution(const Coordinator& c, PeerId from, const Offer& offer) {
  later(delay() + between(1, 20), [this, c, from, offer] {
    event::Fetched fetched{offer.key, offer.contribution.digest, event::Fetched::Outcome::unreachable, "",
                           "the worker is gone"};
    for (const Worker& w : worker_) {
      if (!w || !w->alive || w->incarnation != from || !link_up_[w->index]) continue;
      auto found = w->offered.find(offer.contribution.digest);
      if (found == w->offered.end()) continue;
      c->fetched[fetched.digest] = found->second;
      fetched.outcome =
          found->second.finite ? event::Fetched::Outcome::good : event::Fetched::Outcome::refused;
      fetched.tensor = "w";
      fetched.reason = "not finite";
    }
    feed(c, fetched);
  });
}

}  // namespace tessera::sim
