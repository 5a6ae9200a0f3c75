#include "worker/trainer.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>

#include <chrono>
#include <cmath>

#include "base/random.h"
#include "models/batch_names.h"
#include "monitoring/log.h"
#include "worker/torch_bridge.h"

namespace tessera {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Weights of the whole model; scaled clipping compares the slot's share with it.
std::int64_t trainable_elements(const std::vector<ParamSpec>& specs) {
  std::int64_t total = 0;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) total += spec.elements();
  }
  return total;
}

/// By a power of two, which is exact but for what underflows.
void divide_gradients(const std::vector<Piece>& pieces, double scale) {
  at::NoGradGuard no_grad;
  for (const Piece& piece : pieces) {
    if (piece.gradient.defined()) at::Tensor(piece.gradient).mul_(1 / scale);
  }
}

}  // namespace

Trainer::Trainer(TrainerParts parts, TrainerSettings settings)
    : parts_(parts),
      settings_(std::move(settings)),
      trainable_parameters_(settings_.trained_parameters > 0
                                ? settings_.trained_parameters
                                : trainable_elements(parts_.replica.params().specs())),
      cost_(parts_.replica.family().cost()) {
  if (settings_.uncut_flops == 0)
    settings_.uncut_flops = step_flops_uncut(parts_.replica.params().specs(), cost_, 1).total();
}

Objective::Value Trainer::forward(const TensorMap& tensors, std::optional<std::uint64_t> draws) {
  NamedTensors batch = torch_views(tensors);
  for (auto& [name, tensor] : batch) tensor = tensor.to(parts_.replica.params().device());
  if (draws) batch[batch_draws] = at::scalar_tensor(static_cast<std::int64_t>(*draws), at::kLong);
  return parts_.objective(parts_.replica.family().forward(parts_.replica.params(), batch), batch);
}

Status Trainer::step(SlotRun& run) {
  const Stopwatch watch;
  parts_.replica.activate(run);
  const auto first = static_cast<std::uint64_t>(run.step * settings_.batch);
  const Batch batch = parts_.data.train(run.slot, first, static_cast<std::uint64_t>(settings_.batch));
  // Dropout and the like draw from a key, not from a running state: a re-run step draws the same numbers.
  const std::uint64_t draws = key_of(
      {settings_.seed, static_cast<std::uint64_t>(run.slot.value), static_cast<std::uint64_t>(run.step)});
  at::manual_seed(draws);

  parts_.replica.params().clear_gradients();
  const Objective::Value loss = forward(batch.tensors, draws);
  const double loss_sum = loss.sum.item<double>();
  if (!std::isfinite(loss_sum)) {
    return fail(ExitCode::failed, "the loss of slot ", run.slot, " is ", loss_sum, " at its step ", run.step,
                "; a lower inner.lr or a longer schedule.warmup may help");
  }
  const double scale = run.loss_scale ? run.loss_scale->value() : 1;
  const at::Tensor mean = loss.sum.div(loss.weight);
  (run.loss_scale ? mean.mul(scale) : mean).backward();

  const std::vector<Piece> pieces = run.by_age(parts_.replica.pieces());
  if (run.loss_scale) divide_gradients(pieces, scale);
  const double norm = clip_gradients(pieces, settings_.clip, trainable_parameters_);
  TESSERA_ASSIGN(const bool counted, counts(run, norm));
  if (settings_.steps_locally && counted) {
    run.inner->step(pieces, run.inner->base_lr() * parts_.schedule.factor(run.step), run.updates() + 1);
  }
  if (run.work.steps == 0) run.work.first_sample = first;
  run.work.end_sample = first + static_cast<std::uint64_t>(settings_.batch);
  run.work.steps += 1;
  run.work.units += batch.units;
  run.work.flops += step_flops(parts_.replica.params().specs(), run.owned, cost_, batch.units).total();
  run.work.flops_uncut += settings_.uncut_flops * batch.units;
  run.work.loss_sum += loss_sum;
  run.work.loss_weight += loss.weight;
  if (counted) run.work.grad_norm += (norm - run.work.grad_norm) / static_cast<double>(run.work.steps);
  run.work.compute_seconds += watch.seconds();
  run.step += 1;
  return {};
}

Result<bool> Trainer::counts(SlotRun& run, double norm) {
  if (!run.loss_scale) return true;
  float overflows = std::isfinite(norm) ? 0 : 1;
  if (parts_.ranks != nullptr) TESSERA_TRY(parts_.ranks->all_reduce(std::span<float>(&overflows, 1)));
  if (overflows == 0) {
    run.loss_scale->good_step();
    return true;
  }
  if (!run.loss_scale->overflow()) {
    return fail(ExitCode::failed, "gradients of slot ", run.slot, " overflow fp16 at its step ", run.step,
                " although the loss is hardly scaled any more (", run.loss_scale->value(),
                "); a lower inner.lr or model.precision = \"fp32\" may help");
  }
  log_info("slot ", run.slot, ": the gradients of step ", run.step,
           " overflow fp16 and are left out; loss scale ", run.loss_scale->value());
  return false;
}

bool Trainer::evaluate_batch(std::uint64_t index, Evaluated& sums) {
  if (settings_.eval_batches != 0 && index >= static_cast<std::uint64_t>(settings_.eval_batches))
    return false;
  at::NoGradGuard no_grad;
  const std::optional<Batch> batch =
      parts_.data.held_out(index, static_cast<std::uint64_t>(settings_.eval_batch));
  if (!batch) return false;
  const Objective::Value loss = forward(batch->tensors, std::nullopt);
  sums.loss_sum += loss.sum.item<double>();
  sums.weight += loss.weight;
  sums.bytes += batch->bytes;
  sums.words += batch->words;
  return true;
}

}  // namespace tessera
