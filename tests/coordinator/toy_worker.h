// A worker without a model: drives the worker machine over an endpoint, "trains" by keyed noise that depends
// on the adopted parameters, and keeps slot states in a map that outlives it, as a machine's disk does.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "base/random.h"
#include "comm/changes.h"
#include "comm/storage/safetensors.h"
#include "comm/transport/endpoint.h"
#include "tests/coordinator/small_model.h"
#include "worker/protocol/worker_machine.h"

namespace tessera {

using SlotStates = std::map<Digest, TensorMap>;

class ToyWorker {
 public:
  ToyWorker(std::unique_ptr<Endpoint> endpoint, std::uint64_t number, WorkPlan plan, SlotStates& disk,
            PlanSchedule owners, std::int32_t capacity = 4)
      : schedule(std::move(owners)),
        endpoint_(std::move(endpoint)),
        plan_(std::move(plan)),
        disk_(disk),
        machine_(identity(capacity), {number, 1}) {
    incarnation_ = {number, 1};
  }
  void start(Instant now) { perform(machine_.start(now)); }
  void pump(Instant now) {
    while (auto arrival = endpoint_->receive(now)) {
      if (const auto* received = std::get_if<Received>(&*arrival)) {
        perform(machine_.handle(worker_event::Arrived{received->header, received->message}, now));
        continue;
      }
      const auto& fetched = std::get<BlobArrived>(*arrival);
      Digest digest = fetched.ref.digest;
      Result<Blob> blob = fetched.blob;
      if (const auto update = updates_.extract(digest)) {
        digest = update.mapped().blob.digest;
        if (blob.ok()) blob = made_of(*blob, update.mapped());
      }
      if (blob.ok()) blobs_[digest] = *blob;
      perform(machine_.handle(worker_event::FetchDone{digest, blob.ok(), ""}, now));
    }
    if (now >= machine_.wake_at()) perform(machine_.handle(worker_event::Tick{}, now));
    if (!work_) return;
    const WorkerAction action = *std::exchange(work_, std::nullopt);
    perform(machine_.handle(answer(action), now));
  }
  std::optional<worker_action::Exit> exit;
  std::set<std::string> keeps_fast;  ///< parameters of which a slot keeps its own rows when it adopts
  PlanSchedule schedule;             ///< a worker knows who owns what at which version
  bool spoil_next = false;           ///< the next contribution holds a NaN
  bool spoil_update = false;         ///< the next update does not work
  Wire up{}, down{};
  int parameters_fetched = 0, updates_fetched = 0;

 private:
  struct Slot {
    RowSet owned;
    TensorMap values;     ///< whole parameters
    TensorMap start;      ///< as adopted
    TensorMap residuals;  ///< of the error feedback
    float moment = 0;
    std::int64_t steps = 0;
  };
  static WorkerIdentity identity(std::int32_t capacity) {
    WorkerIdentity identity;
    identity.build = "toy";
    identity.host = "here";
    identity.capacity = capacity;
    return identity;
  }

  void perform(const WorkerActions& actions) {
    for (const WorkerAction& action : actions) {
      if (is_work(action)) {
        work_ = action;
      } else if (const auto* send = std::get_if<worker_action::Send>(&action)) {
        endpoint_->send(coordinator_peer, send->message);
      } else if (const auto* identify = std::get_if<worker_action::Identify>(&action)) {
        endpoint_->identify(identify->job, identify->epoch, incarnation_);
      } else if (const auto* fetch = std::get_if<worker_action::Fetch>(&action)) {
        if (fetch->update) updates_.insert_or_assign(fetch->update->blob.digest, *fetch);
        (fetch->update ? updates_fetched : parameters_fetched) += 1;
        endpoint_->fetch(coordinator_peer, fetch->update ? fetch->update->blob : fetch->blob);
      } else if (const auto* forget = std::get_if<worker_action::Forget>(&action)) {
        blobs_.erase(forget->digest);
      } else if (const auto* withdraw = std::get_if<worker_action::Withdraw>(&action)) {
        endpoint_->withdraw(withdraw->digest);
      } else if (const auto* adopt = std::get_if<worker_action::Adopt>(&action)) {
        take(adopt->slot, *adopt);
      } else if (const auto* ended = std::get_if<worker_action::Exit>(&action)) {
        exit = *ended;
      }
    }
  }

  Result<Blob> made_of(const Blob& update, const worker_action::Fetch& wanted) {
    if (std::exchange(spoil_update, false)) return fail(ExitCode::failed, "spoilt");
    TESSERA_ASSIGN(Buffer bytes, apply_update(down, blobs_.at(wanted.update->base).buffer, update.buffer));
    Blob made(std::move(bytes));
    EXPECT_EQ(made.digest, wanted.blob.digest) << "all copies are the same";
    return made;
  }

  void take(SlotId id, const worker_action::Adopt& adopt) {
    Slot& slot = slots_[id];
    slot.owned = schedule.owned(id, adopt.head.version);
    TensorMap values = clone_of(decode_safetensors(blobs_.at(adopt.head.parameters.digest).buffer)->tensors);
    TensorMap own = slot.values;
    if (adopt.fast) own = decode_safetensors(blobs_.at(adopt.head.fast->digest).buffer)->tensors;
    for (const std::string& name : keeps_fast) {
      if (!own.count(name) || !slot.owned.count(name)) continue;
      for (const Rows& rows : slot.owned.at(name)) {
        std::ranges::copy(own.at(name).rows(rows).as<float>(),
                          values.at(name).rows(rows).as<float>().begin());
      }
    }
    slot.start = clone_of(values);
    slot.values = std::move(values);
  }

  WorkerEvent answer(const WorkerAction& action) {
    if (std::holds_alternative<worker_action::Configure>(action)) {
      return worker_event::Configured{plan_, Ready{{5, 6}, "toy"}};
    }
    if (const auto* restore = std::get_if<worker_action::Restore>(&action)) return restored(*restore);
    if (const auto* run = std::get_if<worker_action::Run>(&action)) {
      train(slots_.at(run->slot), key_of({std::uint64_t(run->slot.value), std::uint64_t(run->first)}));
      return worker_event::Ran{run->slot, run->attempt, 1};
    }
    if (const auto* contribute = std::get_if<worker_action::Contribute>(&action))
      return contributed(*contribute);
    const auto& evaluate = std::get<worker_action::Evaluate>(action);
    return worker_event::EvaluationDone{Evaluated{evaluate.version, 2.0, 1.0, 0, 0}};
  }

  WorkerEvent restored(const worker_action::Restore& restore) {
    Slot& slot = slots_[restore.slot] = Slot{};
    slot.owned = restore.owned;
    if (restore.state.is_zero()) return worker_event::Restored{restore.slot, restore.attempt, std::nullopt};
    auto found = disk_.find(restore.state);
    if (found == disk_.end()) return worker_event::RestoreFailed{restore.slot, restore.attempt, "not here"};
    const auto numbers = found->second.at("progress").as<std::int64_t>();
    slot.moment = found->second.at("moment").as<float>()[0];
    for (const auto& [name, tensor] : found->second) {
      if (name.starts_with("feedback/")) slot.residuals.emplace(name.substr(9), tensor.clone());
    }
    return worker_event::Restored{restore.slot, restore.attempt,
                                  SlotProgress{numbers[0], {Version{numbers[1]}}, {Version{numbers[2]}}}};
  }

  static void train(Slot& slot, std::uint64_t key) {
    KeyedRandom random(key);
    slot.steps += 1;
    for (const auto& [name, ranges] : slot.owned) {
      for (const Rows& rows : ranges) {
        for (float& value : slot.values.at(name).rows(rows).as<float>()) {
          slot.moment = 0.9f * slot.moment + static_cast<float>(random.normal()) + value;
          value -= 0.01f * slot.moment;
        }
      }
    }
  }

  WorkerEvent contributed(const worker_action::Contribute& action) {
    Slot& slot = slots_.at(action.slot);
    TensorMap pieces = pieces_of(slot.values, slot.owned, small_specs());
    if (std::exchange(spoil_next, false))
      pieces.begin()->second.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
    worker_event::Contributed done{action.slot, action.attempt, {}, {}, std::nullopt, {}};
    if (up.rounds()) pieces = encode_pieces(up, pieces, &slot.start, slot.residuals);
    done.parts.push_back({FragmentId{0}, endpoint_->offer(Blob(encode_safetensors(pieces)))});
    const SlotProgress& p = action.progress;
    TensorMap state{{"progress", HostTensor::of<std::int64_t>(
                                     DType::i64, {3}, {p.step, p.adopted[0].value, p.pushed[0].value})},
                    {"moment", HostTensor::of<float>(DType::f32, {1}, {slot.moment})}};
    for (const auto& [name, tensor] : slot.residuals) state.emplace("feedback/" + name, tensor.clone());
    done.slot_state = state_digest(state);
    disk_[done.slot_state] = state;
    if (action.save_state) done.slot_state_blob = endpoint_->offer(Blob(encode_safetensors(state)));
    done.work.steps = static_cast<std::uint64_t>(std::exchange(slot.steps, 0));
    done.work.units = static_cast<double>(done.work.steps) * 10;
    done.work.loss_sum = slot.moment;
    done.work.loss_weight = 1;
    return done;
  }

  std::unique_ptr<Endpoint> endpoint_;
  WorkPlan plan_;
  SlotStates& disk_;
  WorkerMachine machine_;
  Incarnation incarnation_;
  std::optional<WorkerAction> work_;
  std::map<SlotId, Slot> slots_;
  std::map<Digest, Blob> blobs_;
  std::map<Digest, worker_action::Fetch> updates_;  ///< by the digest of the update
};

}  // namespace tessera
