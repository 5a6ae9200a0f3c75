// The second half of WorkerMachine: which slot works next, and what.
#include <algorithm>
#include <utility>

#include "worker/protocol/worker_machine.h"

namespace tessera {
namespace act = worker_action;
namespace ev = worker_event;

void WorkerMachine::configured(const ev::Configured& event) {
  work_is_done();
  life_ = Life::joined;
  plan_ = event.plan;
  ready_ = event.ready;
  heard_ = now_;  // opening the data may have taken long
  if (welcome_) emit(act::Send{*ready_});
}

void WorkerMachine::next_work() {
  if (evaluate()) return;
  if (turn_) {
    auto current = slots_.find(*turn_);
    if (current != slots_.end() && work_on(current->first, current->second)) return;
  }
  for (auto& [id, slot] : slots_) {
    if (id == turn_ || !work_on(id, slot)) continue;
    turn_ = id;
    return;
  }
}

/// Whether the slot got something to do.
bool WorkerMachine::work_on(SlotId id, Slot& slot) {
  if (slot.broken || slot.idle) return false;
  if (!slot.restored) return start_slot(id, slot);
  if (slot.fresh && !begin_fresh(id, slot)) return false;
  if (slot.came_back && !catch_up(id, slot)) return false;
  if (slot.contribute_due) {
    SlotProgress after = slot.progress;
    const std::vector<KnownVersion> fragments = wanted_pushes(slot);
    bool save = false;
    for (const KnownVersion& push : fragments) {
      after.pushed[push.fragment.value] = push.version;
      auto head = heads_.find(push.fragment);
      save |= head != heads_.end() && head->second.save_state && head->second.head.version == push.version;
    }
    work(slot, act::Contribute{id, slot.attempt, fragments, after, save});
    return true;
  }
  if (finished(slot)) return false;
  const Duties duties = plan_->duties(slot.progress.step);
  if (!adopt_what_is_due(id, slot, duties)) return false;
  std::int64_t steps = 1;
  for (Duties last = duties;; ++steps) {
    if (!last.push.empty()) break;
    last = plan_->duties(slot.progress.step + steps);
    if (!last.adopt.empty()) break;
  }
  work(slot, act::Run{id, slot.attempt, slot.progress.step, steps_left(slot, steps)});
  return true;
}

/// Of so many steps, those that the slot is given; 0: its round is over.
std::int64_t WorkerMachine::steps_left(const Slot& slot, std::int64_t at_most) const {
  if (plan_->round_steps == 0 || slot.given_steps == 0) return at_most;
  return std::clamp<std::int64_t>(slot.given_steps - slot.progress.step % plan_->round_steps, 0, at_most);
}

bool WorkerMachine::start_slot(SlotId id, Slot& slot) {
  if (slot.state_blob && !have(slot.state_blob->digest)) return false;
  if (slot.state.is_zero() && !all_heads_fetched()) return false;
  work(slot, act::Restore{id, slot.attempt, slot.owned, slot.state, slot.state_blob});
  return true;
}

bool WorkerMachine::all_heads_fetched() {
  bool all = true;
  for (std::int32_t f = 0; f < plan_->fragments; ++f) {
    auto known = heads_.find(FragmentId{f});
    if (known == heads_.end()) return false;
    const FragmentHead& head = known->second.head;
    if (plan_->fetch_when_due) want(head.parameters, head.update);
    all &= have(head.parameters.digest);
  }
  return all;
}

/// A slot without history starts where the others are: at the newest committed version.
bool WorkerMachine::begin_fresh(SlotId id, Slot& slot) {
  if (!all_heads_fetched()) return false;
  for (std::int32_t f = 0; f < plan_->fragments; ++f) {
    if (!can_adopt(slot, FragmentId{f}))
      return false;  // a newer version was published while it was being restored
  }
  slot.fresh = false;
  slot.progress.step = plan_->step_at(newest_versions());
  slot.progress.pushed.assign(plan_->fragments, Version{-1});
  for (std::int32_t f = 0; f < plan_->fragments; ++f) {
    const FragmentHead& head = heads_.at(FragmentId{f}).head;
    slot.progress.adopted.push_back(head.version);
    adopt(id, slot, head);
  }
  return true;
}

/// Whether the slot has to be given its own values of what is cut with this head. At version 0 nobody has any
/// that differ.
bool WorkerMachine::lacks_fast(const Slot& slot, const FragmentHead& head) const {
  const bool gets_them = (plan_ && plan_->fast_for_all) || !slot.has_fast.contains(head.fragment);
  return head.fast && head.version.value > 0 && gets_them;
}

void WorkerMachine::want_fast_values() {
  for (const auto& [fragment, known] : heads_) {
    for (const auto& [id, slot] : slots_) {
      if (lacks_fast(slot, known.head)) want(*known.head.fast);
    }
  }
}

/// Whether everything of a fragment's newest version that the slot needs has been fetched.
bool WorkerMachine::can_adopt(const Slot& slot, FragmentId fragment) const {
  auto known = heads_.find(fragment);
  return known != heads_.end() && can_adopt(slot, known->second.head);
}

bool WorkerMachine::can_adopt(const Slot& slot, const FragmentHead& head) const {
  return have(head.parameters.digest) && (!lacks_fast(slot, head) || have(head.fast->digest));
}

/// The version that a slot is to adopt: the newest, or the one that it began to fetch. Newer ones may come
/// faster than they can be fetched.
const FragmentHead* WorkerMachine::aim_at(Slot& slot, FragmentId fragment, Version required) {
  const auto known = heads_.find(fragment);
  if (known == heads_.end()) return nullptr;
  const FragmentHead& newest = known->second.head;
  const auto aim = slot.aims.find(fragment);
  if (aim != slot.aims.end() && aim->second.version >= required) return &aim->second;
  if (newest.version < required) return nullptr;
  if (!plan_->fetch_when_due) return &newest;
  want(newest.parameters, newest.update);
  return &(slot.aims[fragment] = newest);
}

/// A version that is not offered any more is fetched in vain; the newest is there.
void WorkerMachine::give_up(const Digest& digest) {
  std::size_t given_up = 0;
  for (auto& [id, slot] : slots_) {
    given_up += std::erase_if(slot.aims, [&](const auto& aim) {
      const auto known = heads_.find(aim.first);
      return aim.second.parameters.digest == digest && known != heads_.end() &&
             known->second.head.version > aim.second.version;
    });
  }
  if (given_up > 0) forget_unused();
}

void WorkerMachine::adopt(SlotId id, Slot& slot, const FragmentHead& head) {
  emit(act::Adopt{id, head, lacks_fast(slot, head)});
  slot.has_fast.insert(head.fragment);
}

/// Of all fragments; their heads are known.
std::vector<Version> WorkerMachine::newest_versions() const {
  std::vector<Version> versions;
  for (const auto& [fragment, known] : heads_) versions.push_back(known.head.version);
  return versions;
}

/// A slot that merges of some fragments did without (mode drop) joins the others where those are: on its own
/// way it would bring what is out of date, or wait for a fragment while the others wait for another. Does
/// nothing where every merge waits for every slot: no version is then newer than what the slot gave to.
bool WorkerMachine::catch_up(SlotId id, Slot& slot) {
  if (plan_->own_clocks) {
    slot.came_back = false;
    return true;
  }
  std::vector<FragmentId> newer;  // than what the slot works on
  bool missed = false;            // a merge without it
  for (FragmentId f{0}; f.value < plan_->fragments; ++f.value) {
    const auto known = heads_.find(f);
    if (known == heads_.end()) return false;
    const Version adopted = slot.progress.adopted[f.value], pushed = slot.progress.pushed[f.value];
    if (known->second.head.version <= adopted) continue;
    if (!can_adopt(slot, f)) return false;
    newer.push_back(f);
    missed |= known->second.head.version.value > pushed.value + 1;
  }
  slot.came_back = false;
  if (!missed || plan_->fragments == 1) return true;  // a single one it adopts when it is due
  slot.progress.step = std::max(slot.progress.step, plan_->step_at(newest_versions()));
  // Also what it gave to and would have adopted at a step that it leaves out.
  for (FragmentId f : newer) {
    const FragmentHead& head = heads_.at(f).head;
    slot.progress.adopted[f.value] = head.version;
    adopt(id, slot, head);
  }
  return true;
}

/// Of a fragment that has had its last merge nothing is taken any more, and other offers wait behind it.
void WorkerMachine::drop_offers_to(FragmentId fragment) {
  for (auto& [id, slot] : slots_) {
    if (slot.unanswered.empty()) continue;
    const bool waited = slot.unanswered.front().offer.key.fragment == fragment;
    std::erase_if(slot.unanswered, [&](const Unanswered& unanswered) {
      const Offer& offer = unanswered.offer;
      if (offer.key.fragment != fragment) return false;
      emit(act::Withdraw{offer.contribution.digest});
      if (offer.slot_state_blob) emit(act::Withdraw{offer.slot_state_blob->digest});
      return true;
    });
    if (waited && !slot.unanswered.empty()) send_first_offer(slot);
  }
}

bool WorkerMachine::adopt_what_is_due(SlotId id, Slot& slot, const Duties& duties) {
  for (FragmentId fragment : duties.adopt) {
    Version& adopted = slot.progress.adopted[fragment.value];
    const Version pushed = slot.progress.pushed[fragment.value];
    // What it gave last must be safe first: a slot never runs further ahead than one contribution per
    // fragment.
    const bool unanswered =
        std::any_of(slot.unanswered.begin(), slot.unanswered.end(),
                    [&](const Unanswered& u) { return u.offer.key.fragment == fragment; });
    if (unanswered) return false;
    const Version required{std::max(adopted.value, pushed.value + 1)};
    const FragmentHead* const head = aim_at(slot, fragment, required);
    if (head == nullptr || !can_adopt(slot, *head)) return false;
    if (head->version == adopted) continue;
    adopted = head->version;
    adopt(id, slot, FragmentHead(*head));
    slot.aims.erase(fragment);
  }
  return true;
}

/// Fragments that the step just done ends for, without those that have had their last merge.
std::vector<KnownVersion> WorkerMachine::wanted_pushes(const Slot& slot) const {
  std::vector<KnownVersion> pushes;
  for (FragmentId fragment : plan_->duties(slot.progress.step - 1).push) {
    const Version version = slot.progress.adopted[fragment.value];
    const auto known = heads_.find(fragment);
    if (known != heads_.end() && known->second.head.version >= plan_->rounds) continue;
    if (version < plan_->rounds && slot.progress.pushed[fragment.value] < version)
      pushes.push_back({fragment, version});
  }
  return pushes;
}

bool WorkerMachine::finished(const Slot& slot) const {
  for (std::int32_t f = 0; f < plan_->fragments; ++f) {
    const Version next{std::max(slot.progress.adopted[f].value, slot.progress.pushed[f].value + 1)};
    if (next < plan_->rounds) return false;
  }
  return true;
}

void WorkerMachine::work(const Slot& slot, WorkerAction action) {
  working_ = true;
  working_instance_ = slot.instance;
  emit(std::move(action));
}

void WorkerMachine::work_is_done() {
  working_ = false;
  for (SlotId slot : std::exchange(release_later_, {})) emit(act::Release{slot});
  for (const Digest& digest : std::exchange(forget_later_, {})) emit(act::Forget{digest});
}

void WorkerMachine::release(SlotId slot) {
  if (working_) {
    release_later_.push_back(slot);
  } else {
    emit(act::Release{slot});
  }
}

void WorkerMachine::forget(const Digest& digest) {
  if (working_) {
    forget_later_.insert(digest);
  } else {
    emit(act::Forget{digest});
  }
}

/// The slot that an answer is about; null when it was revoked, or granted again, since the work was asked
/// for.
WorkerMachine::Slot* WorkerMachine::worked_on(SlotId id) {
  work_is_done();
  auto found = slots_.find(id);
  return found != slots_.end() && found->second.instance == working_instance_ ? &found->second : nullptr;
}

void WorkerMachine::restored(const ev::Restored& event) {
  Slot* slot = worked_on(event.slot);
  if (!slot) return;
  const std::size_t fragments = plan_->fragments;
  if (event.progress &&
      (event.progress->adopted.size() != fragments || event.progress->pushed.size() != fragments)) {
    restore_failed({event.slot, event.attempt, "the slot's state belongs to another number of fragments"});
    return;
  }
  slot->restored = true;
  slot->fresh = !event.progress;
  if (!event.progress) return forget_unused();
  slot->progress = *event.progress;
  slot->came_back = true;
  // Its state holds its own values of every fragment but those that it adopts anew before its next step.
  const std::vector<FragmentId> adopts = plan_->duties(slot->progress.step).adopt;
  for (FragmentId f{0}; f.value < plan_->fragments; ++f.value) {
    if (std::find(adopts.begin(), adopts.end(), f) == adopts.end()) slot->has_fast.insert(f);
  }
  forget_unused();
}

void WorkerMachine::restore_failed(const ev::RestoreFailed& event) {
  Slot* slot = worked_on(event.slot);
  if (!slot) return;
  slot->broken = true;
  emit(act::Send{GrantFailed{event.slot, event.attempt, event.reason}});
}

void WorkerMachine::ran(const ev::Ran& event) {
  steps_ += event.steps;
  Slot* slot = worked_on(event.slot);
  if (!slot) return;
  slot->progress.step += event.steps;
  if (steps_left(*slot, 1) == 0)
    slot->progress.step += plan_->round_steps - slot->progress.step % plan_->round_steps;
  slot->contribute_due = !wanted_pushes(*slot).empty();
}

void WorkerMachine::contributed(const ev::Contributed& event) {
  Slot* slot = worked_on(event.slot);
  if (!slot || !slot->contribute_due) {  // revoked meanwhile
    for (const auto& part : event.parts) emit(act::Withdraw{part.blob.digest});
    if (event.slot_state_blob) emit(act::Withdraw{event.slot_state_blob->digest});
    return;
  }
  slot->contribute_due = false;
  const bool was_idle = slot->unanswered.empty();
  for (std::size_t i = 0; i < event.parts.size(); ++i) {
    // Several contributions of one step: only the last one moves the slot to its new state, so that a slot
    // lost between two of them is re-run from before the first.
    const bool last = i + 1 == event.parts.size();
    const FragmentId fragment = event.parts[i].fragment;
    Offer offer;
    offer.key = {event.slot, fragment, slot->progress.adopted[fragment.value], event.attempt};
    offer.contribution = event.parts[i].blob;
    offer.slot_state = last ? event.slot_state : slot->state;
    if (last) {
      offer.slot_state_blob = event.slot_state_blob;
      offer.work = event.work;
    }
    slot->progress.pushed[fragment.value] = slot->progress.adopted[fragment.value];
    slot->unanswered.push_back({offer, now_});
  }
  slot->state = event.slot_state;
  if (was_idle && !slot->unanswered.empty() && welcome_) send_first_offer(*slot);
}

// ---- evaluation ----

void WorkerMachine::request_evaluation(Version version) {
  if (evaluated_ && evaluated_->version == version) {
    emit(act::Send{*evaluated_});
  } else {
    evaluate_ = version;
  }
}

bool WorkerMachine::evaluate() {
  if (!evaluate_) return false;
  if (!all_heads_fetched()) return false;
  act::Evaluate action{*evaluate_, {}};
  for (std::int32_t f = 0; f < plan_->fragments; ++f) action.heads.push_back(heads_.at(FragmentId{f}).head);
  if (action.heads.back().version != *evaluate_) {  // overtaken: whoever still wants it asks again
    evaluate_.reset();
    return false;
  }
  working_ = true;
  emit(std::move(action));
  return true;
}

void WorkerMachine::evaluation_done(const ev::EvaluationDone& event) {
  work_is_done();
  if (!event.result) return;
  evaluated_ = event.result;
  if (evaluate_ == event.result->version) evaluate_.reset();
  emit(act::Send{*evaluated_});
}

}  // namespace tessera
