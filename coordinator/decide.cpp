#include "coordinator/decide.h"

#include <algorithm>

#include "coordinator/step.h"

namespace tessera {

State::State(CoordinatorSettings given, Ledger recovered)
    : settings(std::move(given)), ledger(std::move(recovered)) {
  TESSERA_CHECK_EQ(static_cast<std::size_t>(settings.slots()), ledger.slots.size());
  fragments.resize(ledger.fragments.size());
}

Decision decide(State& state, const Event& event, Instant now) {
  Decision decision;
  if (state.finished) return decision;
  Step step(state, now, decision);
  std::visit(
      [&](const auto& e) {
        using E = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<E, event::Start>) {
          step.start(e);
        } else if constexpr (std::is_same_v<E, event::Arrived>) {
          step.arrived(e);
        } else if constexpr (std::is_same_v<E, event::Fetched>) {
          step.fetched(e);
        } else if constexpr (std::is_same_v<E, event::Merged>) {
          step.merged(e);
        } else if constexpr (std::is_same_v<E, event::Tick>) {
          step.tick();
        } else if constexpr (std::is_same_v<E, event::WorkerDied>) {
          step.worker_died(e);
        } else {
          step.drain(e);
        }
      },
      event);
  return decision;
}

// ---- events ----

void Step::start(const event::Start& event) {
  TESSERA_CHECK(!s_.started, ": a coordinator starts once");
  TESSERA_CHECK_EQ(event.heads.size(), s_.fragments.size());
  s_.started = true;
  s_.epoch = event.epoch;
  s_.since = now_;
  append(OpenRecord{event.epoch, s_.settings.job, s_.settings.slots(),
                    static_cast<std::int32_t>(s_.fragments.size())});
  because(detail::describe("epoch ", event.epoch, " begins"));
  if (s_.settings.mode == Mode::drop && s_.settings.arrivals_per_merge == 0) {
    const bool derived = s_.settings.deadline == Duration{};
    const std::string wait =
        s_.settings.window
            ? detail::describe("as long as no slot notices, at most ", s_.settings.window->cap, " s")
            : detail::describe(derived ? "at least " : "",
                               seconds(derived ? s_.settings.grace() : s_.settings.deadline), " s");
    note(detail::describe("mode drop: a merge needs ", s_.settings.needed(), " of ", s_.settings.slots(),
                          " contributions, and then waits for the others for ", wait));
  }
  const Version last = s_.version(s_.last_fragment());
  // The predecessor may have died between the commit and the checkpoint.
  if (last.value > 0 && s_.settings.checkpoint_due(last)) emit(action::Checkpoint{s_.last_fragment(), last});
  auto is_missing = [&](const StagedRecord& record) {
    return std::find(event.missing.begin(), event.missing.end(), record.digest) != event.missing.end();
  };
  for (std::size_t f = 0; f < s_.fragments.size(); ++f) {
    s_.fragments[f].head = event.heads[f];
    s_.fragments[f].opened = now_;
    const FragmentLedger ledger = s_.ledger.fragments[f];
    for (const StagedEntry& entry : ledger.staged) {
      if (!is_missing(entry.record)) continue;
      const bool may_do_without = s_.settings.takes_late && s_.settings.mode == Mode::drop;
      if (!s_.ledger.can_take_back(entry) && !may_do_without) {
        return finish(ExitCode::storage,
                      detail::describe("the staged contribution of slot ", entry.record.key.slot,
                                       " is damaged, and later work of the slot is committed"));
      }
      append(LostRecord{entry.record.key, "its staged file is missing or damaged"});
    }
    if (!ledger.sealed) continue;
    for (const StagedRecord& record : ledger.sealed->contributions) {
      if (is_missing(record)) {
        return finish(ExitCode::storage,
                      detail::describe("the sealed contribution of slot ", record.key.slot,
                                       " is missing or damaged; resume from the last checkpoint"));
      }
    }
    s_.fragments[f].merging = true;
    s_.fragments[f].sealed_at = now_;
    note(detail::describe("redoing the merge that was sealed before the restart (version ",
                          ledger.version.value + 1, ")"));
    emit(action::Merge{*ledger.sealed});
  }
  try_close_all();
  finish_if_done();
}

void Step::arrived(const event::Arrived& event) {
  if (!acceptable(event)) return;
  const From from{event.peer, event.header.incarnation};
  if (const auto* leave = std::get_if<Leave>(&event.message)) return on(from, *leave);
  if (s_.ending) {
    emit(action::Send{from.peer, Stop{s_.ending->reason, static_cast<std::int32_t>(s_.ending->code)}});
    return;
  }
  if (const auto* hello = std::get_if<Hello>(&event.message)) return on(from, *hello);
  Member* member = s_.members.find(from.incarnation);
  if (!member) {
    stale("unknown worker");
    emit(action::Send{from.peer, HeartbeatAck{true}});
    return;
  }
  s_.members.heard(*member, from.peer, now_);
  message(from, event.message);
}

/// Whether the header belongs to this job and this coordinator. What does not changes nothing, and is
/// counted.
bool Step::acceptable(const event::Arrived& event) {
  const Header& header = event.header;
  const bool is_hello = std::holds_alternative<Hello>(event.message);
  if (header.incarnation.is_zero()) {
    stale("incarnation");
    return false;
  }
  if (s_.dead.contains(header.incarnation)) {
    stale("dead worker");
    return false;
  }
  if (s_.settings.rules.check_job && header.job != s_.settings.job && !(is_hello && header.job.is_zero())) {
    stale("job");
    if (is_hello) emit(action::Send{event.peer, Refused{"this coordinator runs another job", 78}});
    return false;
  }
  if (!s_.settings.rules.check_epoch) return true;
  if (header.epoch > s_.epoch) {
    finish(ExitCode::fenced,
           detail::describe("a worker knows epoch ", header.epoch, ", this coordinator is epoch ", s_.epoch,
                            ": another one took over"));
    return false;
  }
  if (header.epoch < s_.epoch && !is_hello) {
    stale("epoch");
    if (!std::holds_alternative<Leave>(event.message)) emit(action::Send{event.peer, HeartbeatAck{true}});
    return false;
  }
  return true;
}

void Step::message(const From& from, const Message& message) {
  std::visit(
      [&](const auto& m) {
        using M = std::decay_t<decltype(m)>;
        if constexpr (std::is_same_v<M, Ready> || std::is_same_v<M, Heartbeat> || std::is_same_v<M, Offer> ||
                      std::is_same_v<M, Evaluated> || std::is_same_v<M, GrantFailed>) {
          on(from, m);
        } else {
          stale("not for coordinators");
        }
      },
      message);
}

void Step::tick() {
  if (s_.ending) {
    if (now_ >= s_.ending->until) finish(s_.ending->code, s_.ending->reason);
    return;
  }
  if (!s_.started) return;
  s_.ticked = now_;
  for (const Incarnation& lost : s_.members.expire(now_, s_.settings.lease)) {
    const std::set<SlotId> slots = slots_of(lost);
    note(detail::describe("worker ", lost.hex().substr(0, 8), " was not heard for a lease and held ",
                          slots.size(), " slots"),
         true);
    emit(action::Count{action::Count::What::recovery, "worker"});
    because("a worker's lease expired");
  }
  assign("its holder's lease expired");
  try_close_all();
}

void Step::worker_died(const event::WorkerDied& event) {
  if (!s_.dead.insert(event.incarnation).second) return;
  note(detail::describe("worker ", event.incarnation.hex().substr(0, 8), " died"), true);
  emit(action::Count{action::Count::What::recovery, "worker"});
  because("a supervisor saw a worker end");
  s_.members.remove(event.incarnation);
  if (s_.ending) return finish_if_alone();
  assign("its holder died");
  try_close_all();  // a merge may have waited for that worker alone
}

void Step::drain(const event::Drain& event) {
  if (s_.ending) return;
  note("draining: " + event.reason);
  const Version last = s_.version(s_.last_fragment());
  if (s_.started && last.value > 0) emit(action::Checkpoint{s_.last_fragment(), last});
  stop(ExitCode::resumable, event.reason);
}

// ---- endings ----

void Step::finish_if_done() {
  if (s_.ending || s_.finished) return;
  for (const FragmentLedger& fragment : s_.ledger.fragments) {
    if (fragment.version < s_.settings.rounds || fragment.unrated) return;
  }
  stop(ExitCode::done, "all rounds are committed");
}

/// Tells everybody, and waits a lease for them to leave.
void Step::stop(ExitCode code, const std::string& reason) {
  if (s_.ending || s_.finished) return;
  s_.ending = State::Ending{code, reason, now_ + s_.settings.lease};
  because("stopping: " + reason);
  for (const auto& [incarnation, member] : s_.members.all()) {
    emit(action::Send{member.peer, Stop{reason, static_cast<std::int32_t>(code)}});
  }
  finish_if_alone();
}

void Step::finish_if_alone() {
  // Right after a restart, workers of the previous epoch may not have introduced themselves yet.
  const bool settled = now_ - s_.since >= s_.settings.lease || s_.epoch.value <= 1;
  if (s_.ending && s_.members.empty() && settled) finish(s_.ending->code, s_.ending->reason);
}

void Step::finish(ExitCode code, const std::string& reason) {
  if (s_.finished) return;
  s_.finished = true;
  because("finished: " + reason);
  emit(action::Finish{code, reason});
}

Instant wake_at(const State& state) {
  if (state.finished || !state.started) return Instant::max();
  if (state.ending) return state.ending->until;
  const CoordinatorSettings& settings = state.settings;
  Instant at = state.members.next_expiry(settings.lease).value_or(Instant::max());
  auto consider = [&](Instant when) {
    if (when > state.ticked) at = std::min(at, when);  // what has passed was dealt with then
  };
  // Two waits run from the start: for the holders that a predecessor knew, and for all expected workers.
  for (const SlotLedger& slot : state.ledger.slots) {
    if (slot.attempt.value == 0) {
      consider(state.since + settings.patience());
    } else if (!state.members.find(slot.holder)) {
      consider(state.since + settings.lease);
    }
  }
  if (settings.mode == Mode::drop) {
    for (const State::Fragment& fragment : state.fragments) {
      if (fragment.quorum_at && !fragment.merging) consider(drop_deadline(state, fragment));
    }
  }
  return at;
}

// ---- helpers ----

void Step::append(const Record& record) {
  s_.ledger.apply(record);
  emit(action::Append{record});
}

void Step::send(const Incarnation& to, const Message& message) {
  const Member* member = s_.members.find(to);
  if (member) emit(action::Send{member->peer, message});
}

void Step::stale(const std::string& why) {
  emit(action::Count{action::Count::What::stale, why});
  because("stale: " + why);
}

void Step::note(const std::string& text, bool warning) {
  emit(action::Note{text, warning});
}

void Step::because(const std::string& reason) {
  if (!out_.reason.empty()) out_.reason += "; ";
  out_.reason += reason;
}

}  // namespace tessera
