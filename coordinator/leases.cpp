// Workers and their slots: who may join, who holds what, what they have missed.
#include <algorithm>
#include <utility>

#include "coordinator/step.h"

namespace tessera {

void Step::on(const From& from, const Hello& hello) {
  auto refuse = [&](const std::string& reason) {
    because("refused a worker: " + reason);
    note("refused a worker of " + hello.host + ": " + reason, true);
    emit(action::Send{from.peer, Refused{reason, static_cast<std::int32_t>(ExitCode::refused_recipe)}});
    s_.members.remove(from.incarnation);
  };
  if (hello.build != s_.settings.build) {
    return refuse("this worker is build '" + hello.build + "', the run is build '" + s_.settings.build + "'");
  }
  if (!hello.recipe.is_zero() && hello.recipe != s_.settings.recipe) {
    return refuse("this worker was started with another recipe than the run's");
  }
  Member& member = s_.members.join(from.incarnation, from.peer, now_);
  member.capacity = std::max(1, hello.capacity);
  member.pid = hello.pid;
  member.host = hello.host;
  because("a worker of " + hello.host + " said hello");
  const auto lease_ms = std::chrono::duration_cast<std::chrono::milliseconds>(s_.settings.lease).count();
  emit(action::Send{from.peer, Welcome{s_.settings.recipe_text, lease_ms}});
  for (const HeldSlot& held : hello.held) {
    if (held.slot.value < 0 || held.slot.value >= s_.settings.slots()) continue;
    const SlotLedger& slot = s_.ledger.slot(held.slot);
    if (slot.holder != from.incarnation) emit(action::Send{from.peer, Revoke{held.slot, held.attempt}});
  }
}

void Step::on(const From& from, const Ready& ready) {
  auto refuse = [&](const std::string& reason) {
    because("refused a worker: " + reason);
    note("refused a worker: " + reason, true);
    emit(action::Send{from.peer, Refused{reason, static_cast<std::int32_t>(ExitCode::refused_recipe)}});
    s_.members.remove(from.incarnation);
  };
  if (!s_.ledger.facts) append(FactsRecord{ready});
  const Ready& facts = *s_.ledger.facts;
  if (ready.data != facts.data)
    return refuse("its data are not the run's (another corpus or another tokenizer)");
  if (ready.numerics != facts.numerics) {
    const std::string difference =
        "its numerics '" + ready.numerics + "' are not the run's '" + facts.numerics + "'";
    if (s_.settings.mode == Mode::exact) return refuse(difference + "; mode = \"drop\" allows that");
    note(difference, true);
  }
  Member* member = s_.members.find(from.incarnation);
  const bool is_new = !member->ready;
  member->ready = true;
  if (!is_new) return;
  because("a worker is ready");
  // What it held under the previous coordinator stays its own; the newest heads tell it what it missed.
  for (SlotId slot : slots_of(from.incarnation)) bring_up_to_date(slot);
  assign("a worker is ready");
}

void Step::on(const From& from, const Heartbeat& heartbeat) {
  if (!s_.members.find(from.incarnation)->ready) {
    emit(action::Send{from.peer, HeartbeatAck{true}});
    return;
  }
  send_what_it_missed(from, heartbeat);
  emit(action::Send{from.peer, HeartbeatAck{}});
  assign("it was free");
}

void Step::send_what_it_missed(const From& from, const Heartbeat& heartbeat) {
  std::map<SlotId, Attempt> believes;
  for (const HeldSlot& held : heartbeat.held) {
    if (held.slot.value < 0 || held.slot.value >= s_.settings.slots()) continue;
    believes[held.slot] = held.attempt;
    if (s_.ledger.slot(held.slot).holder == from.incarnation) continue;
    emit(action::Send{from.peer, Revoke{held.slot, held.attempt}});
  }
  const std::set<SlotId> slots = slots_of(from.incarnation);
  for (SlotId slot : slots) {
    auto believed = believes.find(slot);
    const SlotLedger& known = s_.ledger.slot(slot);
    if (must_come_back(slot) || believed == believes.end() || believed->second != known.attempt)
      bring_up_to_date(slot);
  }
  if (slots.empty()) return;
  std::map<FragmentId, Version> knows;
  for (const KnownVersion& known : heartbeat.heads) knows[known.fragment] = known.version;
  for (std::size_t f = 0; f < s_.fragments.size(); ++f) {
    const FragmentId fragment{static_cast<std::int32_t>(f)};
    const bool behind = !knows.contains(fragment) || knows[fragment] < s_.version(fragment);
    if (behind || wants_evaluation(fragment, from.incarnation)) {
      emit(action::Send{from.peer, publication(fragment, from.incarnation)});
    }
  }
}

void Step::on(const From& from, const GrantFailed& failed) {
  if (failed.slot.value < 0 || failed.slot.value >= s_.settings.slots()) return stale("malformed");
  const SlotLedger& slot = s_.ledger.slot(failed.slot);
  if (slot.holder != from.incarnation) return stale("holder");
  if (slot.attempt != failed.attempt) return stale("attempt");
  const std::int32_t failures = ++s_.failed_grants[failed.slot];
  note(detail::describe("slot ", failed.slot, " could not be started: ", failed.reason), true);
  if (failures >= std::max(3, s_.members.serving_count())) {
    if (s_.settings.mode == Mode::exact) {
      return stop(
          ExitCode::storage,
          detail::describe(
              "the state ", slot.state, " of slot ", failed.slot,
              " is on no machine any more; resume from the last checkpoint, or with mode = \"drop\""));
    }
    append(FreshRecord{failed.slot, failed.reason});
    s_.failed_grants.erase(failed.slot);
  }
  std::map<Incarnation, std::int32_t> held;
  for (const auto& [incarnation, member] : s_.members.all()) {
    held[incarnation] = static_cast<std::int32_t>(slots_of(incarnation).size());
  }
  held[from.incarnation] -= 1;
  const auto assigned = s_.members.spread({failed.slot}, held, {{failed.slot, from.incarnation}});
  if (!assigned.empty())
    lease(failed.slot, assigned.begin()->second, "it could not be started: " + failed.reason);
}

void Step::on(const From& from, const Leave& leave) {
  if (!s_.members.find(from.incarnation)) return;
  note("a worker left: " + leave.reason);
  because("a worker left");
  s_.members.remove(from.incarnation);
  if (s_.ending) return finish_if_alone();
  assign("its holder left");
  try_close_all();
}

// ---- leases ----

/// By a living worker, or by one that a predecessor knew and that still has time to introduce itself.
bool Step::is_held(SlotId id) const {
  const SlotLedger& slot = s_.ledger.slot(id);
  if (slot.attempt.value == 0) return false;
  const Member* holder = s_.members.find(slot.holder);
  if (holder) return holder->alive;
  if (s_.dead.contains(slot.holder)) return false;
  return s_.epoch.value > 1 && now_ - s_.since < s_.settings.lease;
}

std::set<SlotId> Step::slots_of(const Incarnation& incarnation) const {
  std::set<SlotId> slots;
  for (std::int32_t k = 0; k < s_.settings.slots(); ++k) {
    const SlotLedger& slot = s_.ledger.slot(SlotId{k});
    if (slot.attempt.value > 0 && slot.holder == incarnation) slots.insert(SlotId{k});
  }
  return slots;
}

void Step::assign(const std::string& reason) {
  if (s_.ending || !s_.started) return;
  std::set<SlotId> free;
  std::map<Incarnation, std::int32_t> held;
  bool ever_leased = false;
  for (std::int32_t k = 0; k < s_.settings.slots(); ++k) {
    const SlotLedger& slot = s_.ledger.slot(SlotId{k});
    ever_leased |= slot.attempt.value > 0;
    if (is_held(SlotId{k})) {
      held[slot.holder] += 1;
    } else {
      free.insert(SlotId{k});
    }
  }
  if (free.empty()) return say_who_waits(0);
  const bool all_came = s_.members.serving_count() >= s_.settings.expected_workers;
  if (!ever_leased && !all_came && now_ - s_.since < s_.settings.patience()) return;
  const auto assigned = s_.members.spread(free, held, {});
  for (const auto& [slot, holder] : assigned) {
    lease(slot, holder, s_.ledger.slot(slot).attempt.value == 0 ? "the first lease" : reason);
  }
  say_who_waits(free.size() - assigned.size());
}

void Step::say_who_waits(std::size_t waiting) {
  const std::size_t before = std::exchange(s_.waiting, waiting);
  if (waiting == 0 && before > 0) note("all slots are held");
  if (waiting <= before) return;
  const std::size_t held = static_cast<std::size_t>(s_.settings.slots()) - waiting;
  const auto needed = static_cast<std::size_t>(s_.settings.needed());
  const std::string what = s_.settings.mode == Mode::exact ? "no merge closes without"
                           : held >= needed                ? "merges close without"
                                                           : detail::describe("a merge needs ", needed,
                                                                              " contributions, but the workers hold only ",
                                                                              held, ": the run stands still");
  note(detail::describe(waiting, waiting == 1 ? " slot waits" : " slots wait", " for a worker with room; ",
                        what),
       true);
}

void Step::lease(SlotId slot, const Incarnation& holder, const std::string& reason) {
  Attempt attempt = s_.ledger.slot(slot).attempt;
  if (s_.settings.rules.new_attempt_per_lease || attempt.value == 0) attempt.value += 1;
  const Incarnation previous = s_.ledger.slot(slot).holder;
  append(LeaseRecord{slot, attempt, holder, reason});
  s_.pending.erase(slot);
  if (previous != holder && !previous.is_zero()) send(previous, Revoke{slot, attempt});
  because(detail::describe("slot ", slot, " leased, attempt ", attempt, ": ", reason));
  grant(slot);
}

/// For a holder that is heard again: a slot that merges did without meanwhile begins anew from its last good
/// state, the others go on.
void Step::bring_up_to_date(SlotId slot) {
  const bool merging = std::any_of(s_.fragments.begin(), s_.fragments.end(),
                                   [](const State::Fragment& fragment) { return fragment.merging; });
  if (!must_come_back(slot)) return grant(slot);
  if (!merging) lease_again(slot, "it was left out of a merge");  // else after the merge
}

/// Sends the holder back to the slot's last good state. Were it gone, assign() would find another one.
void Step::lease_again(SlotId slot, const std::string& reason) {
  lease(slot, s_.ledger.slot(slot).holder, reason);
}

void Step::grant(SlotId id) {
  const SlotLedger& slot = s_.ledger.slot(id);
  Grant grant;
  grant.slot = id;
  grant.attempt = slot.attempt;
  grant.owned = s_.settings.owned(id, s_.fragments.front().head.version);
  for (std::size_t f = 0; f < s_.fragments.size(); ++f) grant.heads.push_back(s_.fragments[f].head);
  grant.slot_state = slot.state;
  const FragmentId last = s_.last_fragment();
  grant.evaluate = wants_evaluation(last, slot.holder);
  grant.save_state = brings_state(s_.version(last));
  grant.steps = steps_of(id);
  send(slot.holder, grant);
}

/// Who evaluates: the holder of the lowest slot that is held by somebody ready.
std::optional<Incarnation> Step::evaluator() const {
  for (const SlotLedger& slot : s_.ledger.slots) {
    if (slot.attempt.value > 0 && s_.members.serving(slot.holder)) return slot.holder;
  }
  return std::nullopt;
}

}  // namespace tessera
