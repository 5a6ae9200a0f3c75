#include "coordinator/coordinator.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>

#include "base/overloaded.h"
#include "comm/storage/safetensors.h"
#include "coordinator/record_codec.h"
#include "monitoring/log.h"

namespace tessera {
namespace {

const Duration look_for_dead_workers = std::chrono::milliseconds(200);

/// Payload bytes of a checkpoint; headers and manifest are not worth counting.
double bytes_of(const Shards& shards) {
  std::size_t bytes = 0;
  for (const auto& [name, shard] : shards) {
    if (const auto* tensors = std::get_if<TensorMap>(&shard)) {
      for (const auto& [tensor_name, tensor] : *tensors) bytes += tensor.bytes().size();
    } else {
      bytes += std::get<Buffer>(shard).bytes.size();
    }
  }
  return static_cast<double>(bytes);
}

/// Whether tensors that were decoded from a blob are nothing but views of its bytes.
bool lie_in(const Blob& blob, const TensorMap& tensors) {
  const std::byte* const begin = blob.bytes().data();
  const std::byte* const end = begin + blob.bytes().size();
  return std::ranges::all_of(tensors, [&](const auto& entry) {
    const Bytes bytes = entry.second.bytes();
    return bytes.empty() || (begin <= bytes.data() && bytes.data() < end);
  });
}

}  // namespace

Coordinator::Coordinator(CoordinatorParts parts, std::unique_ptr<RunStore> store, Endpoint& endpoint,
                         const Clock& clock, Metrics& metrics)
    : parts_(std::move(parts)),
      store_(std::move(store)),
      endpoint_(endpoint),
      clock_(clock),
      metrics_(metrics),
      merger_(parts_.specs, parts_.method, parts_.merge),
      fragments_(fragment_rows(*parts_.method, parts_.specs)) {}

Result<std::unique_ptr<Coordinator>> Coordinator::open(CoordinatorParts parts, Endpoint& endpoint,
                                                       const Clock& clock, Metrics& metrics) {
  TESSERA_ASSIGN(auto store, RunStore::open(parts.store));
  std::unique_ptr<Coordinator> coordinator(
      new Coordinator(std::move(parts), std::move(store), endpoint, clock, metrics));
  TESSERA_TRY(coordinator->recover());
  return coordinator;
}

void Coordinator::start() {
  endpoint_.identify(state_.settings.job, start_.epoch, random_bits128());
  metrics_.set(metric::epoch, static_cast<double>(start_.epoch.value));
  metrics_.set(metric::exact, all_were_exact() ? 1 : 0);
  feed(start_);
}

void Coordinator::drain(const std::string& reason) {
  feed(event::Drain{reason});
}

void Coordinator::pump(Instant wait_until) {
  if (done()) return;
  if (const Status saved = go_on_saving(); !saved.ok()) return fail_with(saved.error());
  Instant until = std::min(wait_until, wake_at(state_));
  if (saving_ && !saving_->took.valid()) until = std::min(until, saving_->due);
  for (auto arrival = endpoint_.receive(until); arrival && !done(); arrival = endpoint_.receive(Instant{}))
    take(*arrival);
  if (done()) return;
  const Instant now = clock_.now();
  if (now >= next_look_) notice_dead_workers(now);
  if (!done() && now >= wake_at(state_)) feed(event::Tick{});
  update_gauges();
}

/// A worker process of this machine that is gone need not be waited for until its lease runs out.
void Coordinator::notice_dead_workers(Instant now) {
  next_look_ = now + look_for_dead_workers;
  if (parts_.host.empty()) return;
  std::vector<Incarnation> dead;
  for (const auto& [incarnation, member] : state_.members.all()) {
    const bool here = member.alive && member.host == parts_.host && member.pid > 0;
    if (here && kill(static_cast<pid_t>(member.pid), 0) != 0 && errno == ESRCH) dead.push_back(incarnation);
  }
  for (const Incarnation& incarnation : dead) feed(event::WorkerDied{incarnation});
}

void Coordinator::take(const Arrival& arrival) {
  if (const auto* received = std::get_if<Received>(&arrival)) {
    feed(event::Arrived{received->from, received->header, received->message});
  } else {
    blob_arrived(std::get<BlobArrived>(arrival));
  }
}

void Coordinator::feed(const Event& event) {
  if (done()) return;
  const Decision decision = decide(state_, event, clock_.now());
  if (!decision.reason.empty()) log_debug(decision.reason);
  for (const Action& action : decision.actions) {
    if (const Status status = perform(action); !status.ok()) return fail_with(status.error());
    if (done()) return;
  }
}

void Coordinator::fail_with(const Error& error) {
  log_error(error.message);
  for (const auto& [incarnation, member] : state_.members.all()) {
    endpoint_.send(member.peer, Stop{error.message, static_cast<std::int32_t>(error.code)});
  }
  finish_ = action::Finish{error.code, error.message};
}

Status Coordinator::perform(const Action& action) {
  return std::visit(
      Overloaded{
          [this](const action::Append& a) { return store_->append(a.record); },
          [this](const action::Send& a) {
            endpoint_.send(a.to, a.message);
            return Status();
          },
          [this](const action::Fetch& a) {
            Fetching& fetching = fetching_[a.offer.key.slot];
            fetching = {.from = a.from,
                        .offer = a.offer,
                        .blobs = {},
                        .is_finite = false,
                        .failure = {},
                        .outstanding = 1,
                        .begin = clock_.now()};
            endpoint_.fetch(a.from, a.offer.contribution);
            if (a.offer.slot_state_blob && a.offer.slot_state_blob->digest != a.offer.contribution.digest) {
              fetching.outstanding = 2;
              endpoint_.fetch(a.from, *a.offer.slot_state_blob);
            }
            return Status();
          },
          [this](const action::Stage& a) {
            auto fetched = fetched_.find(a.key);
            TESSERA_CHECK(fetched != fetched_.end(), ": a contribution is staged that was not fetched");
            const Offer& offer = fetched->second.offer;
            const Blob& blob = fetched->second.blobs.at(a.digest);
            const Instant begin = real_time();
            const Status staged = store_->stage(a.digest, blob.bytes(), endpoint_.file_of(blob));
            part("stage", a.key.version, begin);
            staged_.insert_or_assign(a.key, std::move(fetched->second.tensors));
            if (offer.slot_state_blob)
              keep_slot_state(offer.key.slot, offer.slot_state,
                              fetched->second.blobs.at(offer.slot_state_blob->digest).buffer);
            fetched_.erase(fetched);
            return staged;
          },
          [this](const action::Merge& a) { return perform(a); },
          [this](const action::Retire& a) {
            auto offered = offered_.find({a.fragment, a.version});
            if (offered != offered_.end()) {
              for (const Digest& digest : offered->second) endpoint_.withdraw(digest);
              offered_.erase(offered);
            }
            return Status();
          },
          [this](const action::Row& a) {
            record_metrics(a.commit);
            if (a.evaluated) metrics_.set(metric::eval_loss, a.evaluated->loss_sum / a.evaluated->weight);
            return store_->write_row(row_of(a.commit, a.evaluated));
          },
          [this](const action::Checkpoint& a) { return perform(a); },
          [this](const action::Discard& a) { return discard(a.contributions); },
          [this](const action::Count& a) {
            count(a);
            return Status();
          },
          [](const action::Note& a) {
            log(a.warning ? LogLevel::warning : LogLevel::info, a.text);
            return Status();
          },
          [this](const action::Finish& a) -> Status {
            TESSERA_TRY(finish_saving());
            // Shared memory goes with the run's processes.
            const Status settled = store_->settle(state_.ledger.unmerged());
            if (!settled.ok()) log_warning(settled.error().message);
            store_->remove_spares();
            log(a.code == ExitCode::done ? LogLevel::info : LogLevel::warning, "the run ends: ", a.reason);
            finish_ = a;
            return Status();
          }},
      action);
}

void Coordinator::blob_arrived(const BlobArrived& arrival) {
  std::vector<SlotId> complete;
  for (auto& [slot, fetching] : fetching_) {
    const bool wanted =
        fetching.offer.contribution.digest == arrival.ref.digest ||
        (fetching.offer.slot_state_blob && fetching.offer.slot_state_blob->digest == arrival.ref.digest);
    if (!wanted || fetching.blobs.count(arrival.ref.digest)) continue;
    if (arrival.blob.ok()) {
      fetching.blobs.emplace(arrival.ref.digest, *arrival.blob);
      if (fetching.offer.contribution.digest == arrival.ref.digest) fetching.is_finite = arrival.is_finite;
    } else {
      fetching.failure = arrival.blob.error().message;
    }
    if (--fetching.outstanding == 0) complete.push_back(slot);
  }
  for (SlotId slot : complete) finish_fetch(slot);
}

/// Counts the time since `begin` to the merge of contributions from this version.
void Coordinator::part(const char* name, Version from, Instant begin) {
  phases_[{from.value + 1}].parts[name] += seconds(real_time() - begin);
}

void Coordinator::finish_fetch(SlotId slot) {
  using Outcome = event::Fetched::Outcome;
  auto node = fetching_.extract(slot);
  Fetching& fetching = node.mapped();
  const MergeKey key = fetching.offer.key;
  phases_[{key.version.value + 1}].wire += seconds(clock_.now() - fetching.begin);
  event::Fetched fetched{.key = key, .digest = fetching.offer.contribution.digest, .outcome = Outcome::good};
  if (!fetching.failure.empty()) {
    fetched.outcome = Outcome::unreachable;
    fetched.reason = fetching.failure;
    return feed(fetched);
  }
  const Blob& blob = fetching.blobs.at(fetched.digest);
  const Instant begin = real_time();
  auto contribution = contribution_of(key, blob.buffer, "contribution of slot " + std::to_string(slot.value));
  // Of what was decoded, or copied to where it is aligned, nobody has seen the numbers yet.
  const bool is_finite = fetching.is_finite && contribution.ok() && lie_in(blob, *contribution);
  const Status valid =
      contribution.ok() ? validate(key, *contribution, is_finite) : Status(contribution.error());
  if (!valid.ok()) {
    fetched.outcome = Outcome::refused;
    fetched.reason = valid.error().message;
  } else {
    part("validate", key.version, begin);
    fetching.tensors = *std::move(contribution);
    fetched_.insert_or_assign(key, std::move(fetching));
  }
  feed(fetched);
  fetched_.erase(key);
}

Status Coordinator::perform(const action::Checkpoint& checkpoint) {
  // Of a predecessor, and other fragments have gone on since: what it holds is as good a point to go back to.
  if (fragments_.size() > 1 && store_->has_checkpoint(checkpoint.version)) return {};
  const Instant begin = real_time();
  RollbackRecord position;
  for (const FragmentLedger& fragment : state_.ledger.fragments)
    position.fragments.push_back({fragment.version, fragment.chain});
  Shards shards;
  shards.emplace("parameters", theta_);
  shards.emplace("outer", outer_);
  for (std::int32_t k = 0; k < state_.settings.slots(); ++k) {
    Digest wanted = state_.ledger.slots[k].committed_state;
    Result<Buffer> state = wanted.is_zero() ? Buffer() : slot_state({k}, wanted);
    if (!state.ok() && store_->has_checkpoint(checkpoint.version)) return {};  // made by a predecessor
    // Whoever is here brings its state with the next contribution; only who was left out has nothing newer.
    const Version given = state_.ledger.slots[k].given[checkpoint.fragment.value].version;
    const bool away = given.value + 1 < checkpoint.version.value;
    if (!state.ok() && away && state_.settings.mode == Mode::drop) {
      log_warning("the checkpoint of version ", checkpoint.version, " has an older state of slot ", k,
                  ", which is away: ", state.error().message);
      state = older_slot_state({k}, wanted).value_or(Buffer());
    }
    position.slot_states.push_back(wanted);
    if (wanted.is_zero()) continue;
    if (!state.ok()) {
      log_warning("no checkpoint of version ", checkpoint.version, ": ", state.error().message);
      metrics_.add(metric::checkpoint_failures);
      return {};
    }
    shards.emplace(slot_shard({k}), std::move(*state));
  }
  const Status written = store_->write_checkpoint(checkpoint.version, shards, encode_record(position));
  if (!written.ok()) {  // training goes on; the checkpoint before is kept
    log_error("no checkpoint of version ", checkpoint.version, ": ", written.error().message);
    metrics_.add(metric::checkpoint_failures);
    return {};
  }
  if (!state_.settings.any_version()) slot_states_.clear();
  record_checkpoint(seconds(real_time() - begin), bytes_of(shards));
  return {};
}

}  // namespace tessera
