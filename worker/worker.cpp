#include "worker/worker.h"

#include <algorithm>

#include "base/overloaded.h"
#include "base/pieces.h"
#include "comm/storage/safetensors.h"
#include "monitoring/log.h"

namespace tessera {
namespace {

constexpr int held_out_batches_per_slice = 4;

}  // namespace

Worker::Worker(WorkerIdentity identity, Incarnation incarnation, Endpoint& endpoint, const Clock& clock)
    : machine_(std::move(identity), incarnation), endpoint_(endpoint), clock_(clock) {
  endpoint_.identify({}, {}, incarnation);
}

void Worker::start() {
  perform(machine_.start(clock_.now()));
}

void Worker::quit(const std::string& reason) {
  feed(worker_event::Quit{reason});
}

void Worker::pump(Instant wait_until) {
  if (ended_) return;
  const Instant until = pending_ ? Instant{} : std::min(wait_until, machine_.wake_at());
  const Instant idle_since = clock_.now();
  for (auto arrival = endpoint_.receive(until); arrival && !ended_; arrival = endpoint_.receive(Instant{}))
    take(*arrival);
  if (!pending_) idle_seconds_ += seconds(clock_.now() - idle_since);
  if (!ended_ && clock_.now() >= machine_.wake_at()) feed(worker_event::Tick{});
  if (ended_ || !pending_) return;
  const WorkerAction action = *pending_;
  const WorkerEvent answer =
      std::visit(Overloaded{[this](const worker_action::Configure& a) { return work(a); },
                            [this](const worker_action::Restore& a) { return work(a); },
                            [this](const worker_action::Run& a) { return work(a); },
                            [this](const worker_action::Contribute& a) { return work(a); },
                            [this](const worker_action::Evaluate& a) { return work(a); },
                            [](const auto&) -> WorkerEvent {
                              TESSERA_CHECK(false, ": not a work action");
                              return worker_event::Tick{};
                            }},
                 action);
  if (ended_) return;
  pending_.reset();
  feed(answer);
}

void Worker::take(const Arrival& arrival) {
  if (const auto* received = std::get_if<Received>(&arrival)) {
    feed(worker_event::Arrived{received->header, received->message});
    return;
  }
  const auto& fetched = std::get<BlobArrived>(arrival);
  Digest digest = fetched.ref.digest;
  Result<Blob> blob = fetched.blob;
  if (const auto update = updates_.extract(digest)) {
    const worker_action::Fetch& wanted = update.mapped();
    digest = wanted.blob.digest;
    if (blob.ok()) blob = made_of(*blob, wanted);
    if (!blob.ok()) log_warning("fetching all parameters instead of an update: ", blob.error().message);
  }
  if (!blob.ok()) {
    feed(worker_event::FetchDone{digest, false, blob.error().message});
    return;
  }
  blobs_.insert_or_assign(digest, *blob);
  feed(worker_event::FetchDone{digest, true, {}});
}

void Worker::fetch(const worker_action::Fetch& action) {
  if (action.update) updates_.insert_or_assign(action.update->blob.digest, action);
  endpoint_.fetch(coordinator_peer, action.update ? action.update->blob : action.blob);
}

Result<Blob> Worker::made_of(const Blob& update, const worker_action::Fetch& wanted) {
  const auto base = blobs_.find(wanted.update->base);
  const bool is_sparse = parts_ && parts_->method->share() < 1;
  if (base == blobs_.end() || !parts_ || !(is_sparse || parts_->down.rounds()))
    return fail(ExitCode::failed, "the version before is not here any more");
  TESSERA_ASSIGN(Buffer parameters,
                 is_sparse ? apply_sparse_update(base->second.buffer, update.buffer, coordinates())
                           : apply_update(parts_->down, base->second.buffer, update.buffer));
  Blob made(std::move(parameters));
  if (made.digest != wanted.blob.digest)
    return fail(ExitCode::failed, "it makes other parameters of the version before than were published");
  return made;
}

void Worker::feed(const WorkerEvent& event) {
  perform(machine_.handle(event, clock_.now()));
}

void Worker::perform(const WorkerActions& actions) {
  for (const WorkerAction& action : actions) {
    if (ended_) return;
    if (is_work(action)) {
      TESSERA_CHECK(!pending_, ": the machine asked for work while work is outstanding");
      pending_ = action;
    } else {
      perform(action);
    }
  }
}

void Worker::perform(const WorkerAction& action) {
  std::visit(
      Overloaded{
          [this](const worker_action::Send& a) { endpoint_.send(coordinator_peer, a.message); },
          [this](const worker_action::Identify& a) {
            endpoint_.identify(a.job, a.epoch, machine_.incarnation());
          },
          [this](const worker_action::Fetch& a) { fetch(a); },
          [this](const worker_action::Forget& a) { blobs_.erase(a.digest); },
          [this](const worker_action::Withdraw& a) { endpoint_.withdraw(a.digest); },
          [this](const worker_action::Adopt& a) {
            if (const Status adopted = adopt(a); !adopted.ok()) stop_with(adopted.error());
          },
          [this](const worker_action::Release& a) {
            auto run = runs_.find(a.slot);
            if (run == runs_.end()) return;
            replica_->release(run->second);
            runs_.erase(run);
          },
          [](const worker_action::Note& a) { log(a.warning ? LogLevel::warning : LogLevel::info, a.text); },
          [](const worker_action::Count& a) { log_debug("stale message: ", a.reason); },
          [this](const worker_action::Exit& a) { ended_ = a; },
          [](const auto&) { TESSERA_CHECK(false, ": work actions are not performed at once"); }},
      action);
}

void Worker::stop_with(const Error& error) {
  log_error(error.message);
  endpoint_.send(coordinator_peer, Leave{error.message});
  ended_ = worker_action::Exit{error.code, error.message};
}

Status Worker::adopt(const worker_action::Adopt& action) {
  TESSERA_ASSIGN(TensorMap parameters, tensors_of(action.head, action.head.parameters));
  TensorMap fast;
  if (action.fast) {
    TESSERA_ASSIGN(fast, tensors_of(action.head, *action.head.fast));
  }
  SlotRun& run = runs_.at(action.slot);
  change_owned(run, action, parameters);
  Replica::Taken taken;
  if (parts_->method->share() < 1)
    taken = [this, version = action.head.version.value](const ParamSpec& spec, Rows rows) {
      return parts_->method->coordinates(version, spec, rows);
    };
  replica_->adopt(run, parameters, action.fast ? &fast : nullptr, taken);
  log_debug("slot ", action.slot, ", fragment ", action.head.fragment, ": has adopted version ",
            action.head.version);
  return {};
}

bool Worker::is_of_model(const std::string& piece, const HostTensor& tensor) const {
  const auto& known = replica_->params().all();
  const auto parameter = known.find(piece.substr(0, piece.find('[')));
  if (parameter == known.end() || tensor.dtype != DType::f32) return false;
  const ParamSpec& spec = parameter->second.spec;
  const Rows rows = rows_of_piece(piece, spec.rows()).rows;
  std::vector<std::int64_t> shape = spec.shape;
  if (!shape.empty()) shape[0] = rows.count();
  return 0 <= rows.begin && rows.begin < rows.end && rows.end <= spec.rows() && tensor.shape == shape;
}

Result<TensorMap> Worker::tensors_of(const FragmentHead& head, const BlobRef& ref) {
  auto blob = blobs_.find(ref.digest);
  TESSERA_CHECK(blob != blobs_.end(), ": parameters were not fetched before they were adopted");
  const std::string where = "parameters of version " + std::to_string(head.version.value);
  TESSERA_ASSIGN(auto file, decode_safetensors(blob->second.buffer, where));
  for (const auto& [name, tensor] : file.tensors) {
    const std::string piece = name.starts_with(moment_prefix) ? name.substr(name.find('/') + 1) : name;
    if (!is_of_model(piece, tensor)) {
      return fail(ExitCode::refused_recipe, where, ": tensor '", name, "' is not of this model");
    }
  }
  return std::move(file.tensors);
}

WorkerEvent Worker::work(const worker_action::Configure& action) {
  Result<std::unique_ptr<WorkerParts>> parts = configure_(action.recipe);
  if (!parts.ok()) return worker_event::ConfigureFailed{parts.error().code, parts.error().message};
  parts_ = std::move(*parts);
  parts_->cut.own_share = parts_->method->own_share();
  replica_ = std::make_unique<Replica>(*parts_->family, parts_->cut, parts_->device);
  if (parts_->set_frozen) replica_->set_frozen(parts_->set_frozen);
  trainer_ = std::make_unique<Trainer>(
      TrainerParts{*replica_, *parts_->objective, *parts_->schedule, *parts_->data}, parts_->trainer);
  const std::shared_ptr<const OuterMethod> method = parts_->method;
  fragments_ = fragment_rows(*method, replica_->params().specs());
  WorkPlan plan{.fragments = static_cast<std::int32_t>(fragments_.size()),
                .rounds = parts_->rounds,
                .step_at =
                    [method](const std::vector<Version>& heads) {
                      std::vector<std::int64_t> versions;
                      for (Version version : heads) versions.push_back(version.value);
                      return method->step_at(versions);
                    },
                .fast_for_all = parts_->fast_for_all,
                .own_clocks = method->takes_late(),
                .fetch_when_due = method->arrivals_per_merge() > 0,
                .round_steps = method->dynamic_steps() ? method->steps_per_merge() : 0,
                .duties =
                    [method](std::int64_t step) {
                      const Due due = method->due(step);
                      Duties duties;
                      for (std::int32_t fragment : due.adopt) duties.adopt.push_back({fragment});
                      for (std::int32_t fragment : due.push) duties.push.push_back({fragment});
                      return duties;
                    }};
  return worker_event::Configured{std::move(plan), parts_->ready};
}

WorkerEvent Worker::work(const worker_action::Restore& action) {
  if (auto old = runs_.find(action.slot); old != runs_.end()) {
    replica_->release(old->second);
    runs_.erase(old);
  }
  SlotRun& run = runs_[action.slot];
  run.slot = action.slot;
  run.attempt = action.attempt;
  run.inner = parts_->make_inner();
  run.loss_scale = parts_->loss_scale;
  if (action.state.is_zero()) return worker_event::Restored{action.slot, action.attempt, std::nullopt};
  Result<SlotProgress> progress = restore(run, action);
  if (!progress.ok()) {
    runs_.erase(action.slot);
    return worker_event::RestoreFailed{action.slot, action.attempt, progress.error().message};
  }
  return worker_event::Restored{action.slot, action.attempt, *progress};
}

Result<SlotProgress> Worker::restore(SlotRun& run, const worker_action::Restore& action) {
  if (!action.blob) {
    TESSERA_ASSIGN(auto state, store_->load(action.slot, action.state));
    return load(run, state);
  }
  auto blob = blobs_.find(action.blob->digest);
  TESSERA_CHECK(blob != blobs_.end(), ": a slot state was not fetched before it was restored");
  TESSERA_ASSIGN(auto file, decode_safetensors(blob->second.buffer,
                                               "state of slot " + std::to_string(action.slot.value)));
  if (state_digest(file.tensors) != action.state) {
    return fail(ExitCode::storage, "the fetched state of slot ", action.slot,
                " does not have the digest that was granted");
  }
  // Kept here too, so that the next holder on this machine finds it.
  TESSERA_TRY(store_->save(action.slot, action.state, blob->second.bytes(), parts_->durability));
  return load(run, file.tensors);
}

/// A saved slot owns what it owned when it was saved; what it adopts next may change that.
Result<SlotProgress> Worker::load(SlotRun& run, const TensorMap& state) const {
  TESSERA_ASSIGN(SlotProgress progress, run.load(state));
  if (progress.adopted.size() != fragments_.size()) return progress;  // refused by the machine
  for (std::size_t f = 0; f < progress.adopted.size(); ++f)
    add_rows(run.owned, owned_of(run.slot, {static_cast<std::int32_t>(f)}, progress.adopted[f]));
  return progress;
}

RowSet Worker::owned_of(SlotId slot, FragmentId fragment, Version version) const {
  return common_rows(parts_->owned(slot, version), fragments_.at(static_cast<std::size_t>(fragment.value)));
}

/// The slot works on from a committed version, on the rows that are its own there.
void Worker::change_owned(SlotRun& run, const worker_action::Adopt& action, TensorMap& parameters) {
  const TensorMap handed = take_moments(parameters);
  RowSet owned = owned_of(run.slot, action.head.fragment, action.head.version);
  add_rows(owned,
           rows_without(run.owned, fragments_.at(static_cast<std::size_t>(action.head.fragment.value))));
  if (owned != run.owned) {
    replica_->rest(run);
    run.own(std::move(owned), run.updates(), replica_->params().specs(), handed);
  }
  const bool averages = std::any_of(parts_->moments.begin(), parts_->moments.end(), [&](const auto& moment) {
    return parts_->method->merges_per_moment(moment) > 0;
  });
  if (averages && !handed.empty()) run.replace_moments(handed);
}

WorkerEvent Worker::work(const worker_action::Run& action) {
  SlotRun& run = runs_.at(action.slot);
  run.go_to(action.first);
  run.work.wait_seconds += std::exchange(idle_seconds_, 0);
  if (Status status = trainer_->step(run); !status.ok()) stop_with(status.error());
  return worker_event::Ran{action.slot, action.attempt, 1};
}

WorkerEvent Worker::work(const worker_action::Contribute& action) {
  Result<worker_event::Contributed> contributed = contribute(runs_.at(action.slot), action);
  if (!contributed.ok()) {
    stop_with(contributed.error());
    return worker_event::Tick{};
  }
  return std::move(*contributed);
}

Result<worker_event::Contributed> Worker::contribute(SlotRun& run, const worker_action::Contribute& action) {
  const Instant begin = clock_.now();
  for (const KnownVersion& known : action.fragments)
    log_debug("slot ", action.slot, ", fragment ", known.fragment, ": pushes from version ", known.version);
  replica_->activate(run);
  run.go_to(action.progress.step);  // what is left out of a round counts before it is saved
  const bool is_gradient = parts_->method->payload() == Payload::gradient;
  const bool is_change = parts_->method->payload() != Payload::theta_end;
  const TensorMap own = is_gradient                        ? replica_->own_gradients()
                        : parts_->method->changes_pushes() ? replica_->own_values()
                                                           : replica_->own_views();
  worker_event::Contributed contributed{.slot = action.slot,
                                        .attempt = action.attempt,
                                        .parts = {},
                                        .slot_state = {},
                                        .slot_state_blob = {},
                                        .work = {}};
  for (const KnownVersion& known : action.fragments) {
    const RowSet& fragment = fragments_.at(static_cast<std::size_t>(known.fragment.value));
    TensorMap part = pieces_of(own, fragment, replica_->params().specs());
    if (parts_->method->changes_pushes()) before_push(run, known.version, part);
    if (parts_->up.rounds())
      part = encode_pieces(parts_->up, part, is_change ? nullptr : &run.adopted, run.residuals);
    thin_out(part, known.version);
    for (const std::string& moment : parts_->moments) {
      const RowSet moving = common_rows(parts_->brings_moments(moment, run.slot, known.version), fragment);
      part.merge(run.moments_of(moment, moving, replica_->params().specs()));
    }
    contributed.parts.push_back(
        {known.fragment, endpoint_.offer(safetensors_blob(
                             part, [this](std::size_t size) { return endpoint_.allocate(size); }))});
  }
  const TensorMap view = view_after(run, action.progress);
  const TensorMap state = run.state(action.progress, view, bases_of(run, view));
  contributed.slot_state = state_digest(state);
  const Blob encoded = safetensors_blob(state);
  TESSERA_TRY(store_->save(action.slot, contributed.slot_state, encoded.bytes(), parts_->durability));
  if (action.save_state) contributed.slot_state_blob = endpoint_.offer(encoded);
  run.work.encode_seconds = seconds(clock_.now() - begin);
  contributed.work = std::exchange(run.work, {});
  return contributed;
}

WorkerEvent Worker::work(const worker_action::Evaluate& action) {
  if (!evaluation_ || evaluation_->sums.version != action.version) {
    evaluation_.emplace();
    evaluation_->sums.version = action.version;
  }
  TensorMap parameters;
  for (const FragmentHead& head : action.heads) {
    Result<TensorMap> fragment = tensors_of(head, head.parameters);
    if (!fragment.ok()) {
      stop_with(fragment.error());
      return worker_event::EvaluationDone{};
    }
    take_moments(*fragment);
    parameters.merge(*fragment);
  }
  replica_->show(parameters);
  for (int i = 0; i < held_out_batches_per_slice; ++i) {
    if (!trainer_->evaluate_batch(evaluation_->next_batch++, evaluation_->sums)) {
      const Evaluated result = evaluation_->sums;
      evaluation_.reset();
      return worker_event::EvaluationDone{result};
    }
  }
  return worker_event::EvaluationDone{};
}

}  // namespace tessera
