#include "worker/protocol/worker_machine.h"

#include <algorithm>
#include <utility>

namespace tessera {
namespace act = worker_action;
namespace ev = worker_event;

bool is_work(const WorkerAction& action) {
  return std::holds_alternative<act::Configure>(action) || std::holds_alternative<act::Restore>(action) ||
         std::holds_alternative<act::Run>(action) || std::holds_alternative<act::Contribute>(action) ||
         std::holds_alternative<act::Evaluate>(action);
}

WorkerMachine::WorkerMachine(WorkerIdentity identity, Incarnation incarnation)
    : identity_(std::move(identity)), incarnation_(incarnation) {}

WorkerActions WorkerMachine::start(Instant now) {
  now_ = heard_ = now;
  emit(act::Identify{job_, epoch_});
  say_hello();
  return std::exchange(actions_, {});
}

WorkerActions WorkerMachine::handle(const WorkerEvent& event, Instant now) {
  now_ = now;
  if (life_ == Life::exited) return {};
  dispatch(event);
  if (life_ == Life::joined && !working_) next_work();
  return std::exchange(actions_, {});
}

void WorkerMachine::dispatch(const WorkerEvent& event) {
  std::visit(
      [this](const auto& e) {
        using E = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<E, ev::Arrived>) {
          arrived(e);
        } else if constexpr (std::is_same_v<E, ev::FetchDone>) {
          fetch_done(e);
        } else if constexpr (std::is_same_v<E, ev::Tick>) {
          tick();
        } else if constexpr (std::is_same_v<E, ev::Quit>) {
          leave(ExitCode::resumable, e.reason);
        } else if constexpr (std::is_same_v<E, ev::Configured>) {
          configured(e);
        } else if constexpr (std::is_same_v<E, ev::ConfigureFailed>) {
          leave(e.code, e.reason);
        } else if constexpr (std::is_same_v<E, ev::Restored>) {
          restored(e);
        } else if constexpr (std::is_same_v<E, ev::RestoreFailed>) {
          restore_failed(e);
        } else if constexpr (std::is_same_v<E, ev::Ran>) {
          ran(e);
        } else if constexpr (std::is_same_v<E, ev::Contributed>) {
          contributed(e);
        } else {
          evaluation_done(e);
        }
      },
      event);
}

// ---- messages ----

bool WorkerMachine::is_stale(const ev::Arrived& event) {
  const Header& header = event.header;
  const bool greeting = std::holds_alternative<Welcome>(event.message) ||
                        std::holds_alternative<Refused>(event.message) ||
                        std::holds_alternative<Stop>(event.message);
  if (!job_.is_zero() && header.job != job_) {
    emit(act::Count{"job"});
    return true;
  }
  if (header.epoch < epoch_) {
    emit(act::Count{"epoch"});
    return true;
  }
  if (greeting) return false;
  if (header.epoch > epoch_ && !job_.is_zero()) {
    // A new coordinator: what we hold is ours until it says otherwise, so introduce ourselves and work on.
    epoch_ = header.epoch;
    welcome_ = false;
    say_hello();
  }
  if (!welcome_) {
    emit(act::Count{"before welcome"});
    return true;
  }
  return false;
}

void WorkerMachine::arrived(const ev::Arrived& event) {
  if (is_stale(event)) return;
  heard_ = now_;
  if (const auto* welcome = std::get_if<Welcome>(&event.message)) {
    on(*welcome, event.header);
  } else if (const auto* refused = std::get_if<Refused>(&event.message)) {
    on(*refused);
  } else if (const auto* stop = std::get_if<Stop>(&event.message)) {
    on(*stop);
  } else if (const auto* ack = std::get_if<HeartbeatAck>(&event.message)) {
    on(*ack);
  } else if (life_ == Life::joined) {
    joined_only(event.message);
  } else {
    emit(act::Count{"before welcome"});
  }
}

void WorkerMachine::joined_only(const Message& message) {
  std::visit(
      [this](const auto& m) {
        using M = std::decay_t<decltype(m)>;
        if constexpr (std::is_same_v<M, Grant> || std::is_same_v<M, Publish> || std::is_same_v<M, Taken> ||
                      std::is_same_v<M, Rejected> || std::is_same_v<M, Revoke>) {
          on(m);
        } else {
          emit(act::Count{"not for workers"});
        }
      },
      message);
}

void WorkerMachine::on(const Welcome& message, const Header& header) {
  if (!welcome_ || header.epoch != epoch_)
    heads_.clear();  // a new coordinator may have gone back to a checkpoint
  job_ = header.job;
  epoch_ = header.epoch;
  lease_ = std::chrono::milliseconds(message.lease_ms);
  emit(act::Identify{job_, epoch_});
  if (!welcome_) next_heartbeat_ = now_ + retry();
  welcome_ = true;
  if (life_ == Life::greeting) {
    life_ = Life::configuring;
    working_ = true;
    emit(act::Configure{message.recipe});
  } else if (ready_) {
    emit(act::Send{*ready_});
  }
}

void WorkerMachine::on(const Refused& message) {
  leave(static_cast<ExitCode>(message.code), "refused by the coordinator: " + message.reason);
}

void WorkerMachine::on(const Grant& message) {
  auto found = slots_.find(message.slot);
  if (found != slots_.end() && message.attempt < found->second.attempt) {
    emit(act::Count{"attempt"});
    return;
  }
  for (const FragmentHead& head : message.heads) learn_head(head, message.save_state);
  forget_unused();  // now that all are known
  if (found == slots_.end() || message.attempt > found->second.attempt) {
    if (found != slots_.end()) {
      drop_offers(found->second);
      release(message.slot);
    }
    Slot& slot = slots_[message.slot] = Slot{};
    slot.instance = ++instances_;
    slot.attempt = message.attempt;
    slot.owned = message.owned;
    slot.given_steps = message.steps;
    slot.state = message.slot_state;
    slot.state_blob = message.slot_state_blob;
    if (slot.state_blob) want(*slot.state_blob);
    want_fast_values();
  } else if (found->second.broken) {
    emit(act::Send{GrantFailed{message.slot, message.attempt, "the slot's state is not on this machine"}});
  }
  if (message.evaluate && plan_) {
    auto head = heads_.find(FragmentId{plan_->fragments - 1});
    if (head != heads_.end()) request_evaluation(head->second.head.version);
  }
}

void WorkerMachine::on(const Publish& message) {
  learn_head(message.head, message.save_state);
  forget_unused();
  if (message.evaluate) request_evaluation(message.head.version);
}

void WorkerMachine::on(const Taken& message) {
  Slot* slot = slot_of(message.key.slot, message.key.attempt);
  if (!slot || slot->unanswered.empty() || slot->unanswered.front().offer.key != message.key ||
      slot->unanswered.front().offer.contribution.digest != message.digest) {
    emit(act::Count{"answered"});
    return;
  }
  const Offer& offer = slot->unanswered.front().offer;
  emit(act::Withdraw{offer.contribution.digest});
  if (offer.slot_state_blob) emit(act::Withdraw{offer.slot_state_blob->digest});
  slot->unanswered.pop_front();
  slot->given_steps = message.steps;
  if (!slot->unanswered.empty()) send_first_offer(*slot);
}

void WorkerMachine::on(const Rejected& message) {
  Slot* slot = slot_of(message.key.slot, message.key.attempt);
  if (!slot || slot->unanswered.empty() || slot->unanswered.front().offer.key != message.key) {
    emit(act::Count{"answered"});
    return;
  }
  emit(act::Note{detail::describe("contribution of slot ", message.key.slot, " to version ",
                                  message.key.version.value + 1, " was rejected: ", message.reason),
                 true});
  drop_offers(*slot);
  slot->idle = true;  // the coordinator leases the slot again, from its last good state
}

void WorkerMachine::on(const Revoke& message) {
  auto found = slots_.find(message.slot);
  if (found == slots_.end() || message.attempt < found->second.attempt) {
    emit(act::Count{"attempt"});
    return;
  }
  drop_offers(found->second);
  slots_.erase(found);
  release(message.slot);
  forget_unused();
}

void WorkerMachine::on(const HeartbeatAck& message) {
  if (message.say_hello && now_ >= next_hello_) say_hello();
}

void WorkerMachine::on(const Stop& message) {
  leave(static_cast<ExitCode>(message.code), message.reason);
}

// ---- timers, blobs, sending ----

void WorkerMachine::tick() {
  if (now_ - heard_ >= identity_.lost_after) {
    leave(ExitCode::resumable, "no coordinator for " + std::to_string(seconds(identity_.lost_after)) + " s");
    return;
  }
  const bool silent = !welcome_ || (life_ == Life::joined && now_ - heard_ >= lease_);
  if (silent && now_ >= next_hello_) say_hello();
  if (welcome_ && life_ == Life::joined && now_ >= next_heartbeat_) send_heartbeat();
  for (auto& [digest, wanted] : wanted_) {
    if (wanted.fetching || now_ < wanted.retry_at) continue;
    wanted.fetching = true;
    emit(act::Fetch{wanted.blob});  // a short way that failed is not tried again
  }
  if (!welcome_) return;
  for (auto& [id, slot] : slots_) {
    if (!slot.unanswered.empty() && now_ >= slot.unanswered.front().next_send) send_first_offer(slot);
  }
}

Instant WorkerMachine::wake_at() const {
  if (life_ == Life::exited) return Instant::max();
  Instant at = heard_ + identity_.lost_after;
  const bool joined = life_ == Life::joined;
  if (!welcome_) at = std::min(at, next_hello_);
  if (welcome_ && joined) {
    at = std::min(at, next_heartbeat_);
    at = std::min(at, std::max(heard_ + lease_, next_hello_));
    for (const auto& [id, slot] : slots_) {
      if (!slot.unanswered.empty()) at = std::min(at, slot.unanswered.front().next_send);
    }
  }
  for (const auto& [digest, wanted] : wanted_) {
    if (!wanted.fetching) at = std::min(at, wanted.retry_at);
  }
  return at;
}

void WorkerMachine::say_hello() {
  emit(act::Send{
      Hello{identity_.build, identity_.host, identity_.pid, identity_.capacity, identity_.recipe, held()}});
  next_hello_ = now_ + retry();
}

void WorkerMachine::send_heartbeat() {
  Heartbeat heartbeat{steps_, held(), {}};
  for (const auto& [fragment, known] : heads_) heartbeat.heads.push_back({fragment, known.head.version});
  emit(act::Send{heartbeat});
  next_heartbeat_ = now_ + retry();
}

void WorkerMachine::send_first_offer(Slot& slot) {
  emit(act::Send{slot.unanswered.front().offer});
  slot.unanswered.front().next_send = now_ + retry();
}

void WorkerMachine::drop_offers(Slot& slot) {
  for (const Unanswered& unanswered : slot.unanswered) {
    emit(act::Withdraw{unanswered.offer.contribution.digest});
    if (unanswered.offer.slot_state_blob) emit(act::Withdraw{unanswered.offer.slot_state_blob->digest});
  }
  slot.unanswered.clear();
}

void WorkerMachine::learn_head(const FragmentHead& head, bool save_state) {
  auto [known, is_new] = heads_.try_emplace(head.fragment, Head{head, save_state});
  if (!is_new) {
    FragmentHead& old = known->second.head;
    if (head.version < old.version) return;
    if (head.version == old.version && head.state_hash != old.state_hash) {
      leave(ExitCode::failed,
            detail::describe("two different parameters were published as version ", head.version));
      return;
    }
    known->second = Head{head, save_state};
  }
  if (!plan_ || !plan_->fetch_when_due) want(head.parameters, head.update);
  if (plan_ && plan_->own_clocks && head.version >= plan_->rounds) drop_offers_to(head.fragment);
  want_fast_values();
}

void WorkerMachine::want(const BlobRef& blob, const std::optional<FragmentHead::Update>& update) {
  if (forget_later_.erase(blob.digest) > 0) fetched_.insert(blob.digest);
  if (fetched_.contains(blob.digest)) return;
  auto [wanted, is_new] = wanted_.try_emplace(blob.digest, Wanted{blob, std::nullopt, true, now_});
  if (!is_new) {
    wanted->second.blob = blob;  // a new coordinator may offer it elsewhere
    return;
  }
  if (update && fetched_.contains(update->base)) wanted->second.update = update;
  emit(act::Fetch{blob, wanted->second.update});
}

bool WorkerMachine::have(const Digest& digest) const {
  return fetched_.contains(digest);
}

void WorkerMachine::fetch_done(const ev::FetchDone& event) {
  auto wanted = wanted_.find(event.digest);
  if (wanted == wanted_.end()) {
    if (event.ok && !fetched_.contains(event.digest)) forget(event.digest);
    return;
  }
  if (event.ok) {
    const bool was_made = wanted->second.update.has_value();
    wanted_.erase(wanted);
    fetched_.insert(event.digest);
    if (was_made) forget_unused();
  } else {
    wanted->second.fetching = false;
    wanted->second.retry_at = wanted->second.update ? now_ : now_ + retry();
    wanted->second.update.reset();
    give_up(event.digest);
  }
}

void WorkerMachine::forget_unused() {
  std::set<Digest> used;
  for (const auto& [fragment, known] : heads_) {
    used.insert(known.head.parameters.digest);
    for (const auto& [id, slot] : slots_) {
      if (lacks_fast(slot, known.head)) used.insert(known.head.fast->digest);
    }
  }
  for (const auto& [id, slot] : slots_) {
    if (slot.state_blob && !slot.restored) used.insert(slot.state_blob->digest);
    for (const auto& [fragment, head] : slot.aims) used.insert(head.parameters.digest);
  }
  for (const auto& [digest, wanted] : wanted_) {
    if (wanted.update && used.contains(digest)) used.insert(wanted.update->base);
  }
  std::erase_if(wanted_, [&](const auto& entry) { return !used.contains(entry.first); });
  std::erase_if(fetched_, [&](const Digest& digest) {
    if (used.contains(digest)) return false;
    forget(digest);
    return true;
  });
}

void WorkerMachine::leave(ExitCode code, const std::string& reason) {
  if (life_ == Life::exited) return;
  emit(act::Send{Leave{reason}});
  emit(act::Exit{code, reason});
  life_ = Life::exited;
}

WorkerMachine::Slot* WorkerMachine::slot_of(SlotId id, Attempt attempt) {
  auto found = slots_.find(id);
  return found != slots_.end() && found->second.attempt == attempt ? &found->second : nullptr;
}

std::vector<HeldSlot> WorkerMachine::held() const {
  std::vector<HeldSlot> held;
  for (const auto& [id, slot] : slots_) {
    if (!slot.broken) held.push_back({id, slot.attempt});
  }
  return held;
}

Duration WorkerMachine::retry() const {
  return lease_ > Duration{} ? lease_ / 4 : identity_.first_retry;
}
void WorkerMachine::emit(WorkerAction action) {
  actions_.push_back(std::move(action));
}

}  // namespace tessera
