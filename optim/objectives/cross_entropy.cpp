// Next-token cross entropy in nats: reads outputs["logits"] [B, T, vocab] and batch["targets"] [B, T] int64,
// where a negative target is not counted. Optional batch["weights"] [B, T] weighs each target; the
// denominator is then the counted weight.
//
// Log-probabilities are never stored: the forward pass keeps one log-sum-exp per position, the backward pass
// makes the gradient from it and the logits in one walk, block by block inside the cache.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sub.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "optim/objective.h"

namespace tessera {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Tensors = std::map<std::string, Tensor>;

/// Calls visit(first row, rows) for blocks of about 2^17 elements.
template <class Visit>
void for_blocks(const Tensor& matrix, Visit visit) {
  const std::int64_t rows = matrix.size(0), step = std::max<std::int64_t>(1, (1 << 17) / matrix.size(1));
  for (std::int64_t first = 0; first < rows; first += step) visit(first, std::min(step, rows - first));
}

/// logits [N, V], targets [N, 1] >= 0, weights [N] -> sum over n of weights[n] * (logsumexp(logits[n]) -
/// logits[n, target]).
struct WeightedNll : torch::autograd::Function<WeightedNll> {
  static Tensor forward(AutogradContext* ctx, const Tensor& logits, const Tensor& targets,
                        const Tensor& weights) {
    Tensor normaliser = at::empty({logits.size(0)}, logits.options());
    for_blocks(logits, [&](std::int64_t first, std::int64_t rows) {
      normaliser.narrow(0, first, rows).copy_(at::logsumexp(logits.narrow(0, first, rows), 1));
    });
    ctx->save_for_backward({logits, targets, weights, normaliser});
    return ((normaliser - logits.gather(1, targets).squeeze(1)) * weights).sum();
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &logits = saved[0], &targets = saved[1], &normaliser = saved[3];
    const Tensor scale = (saved[2] * gradients[0]).unsqueeze(1);  // [N, 1]
    if (at::GradMode::is_enabled()) {  // will be differentiated again: let autograd see every step
      return {(at::softmax(logits, 1) * scale).scatter_add(1, targets, -scale), {}, {}};
    }
    Tensor result = at::empty_like(logits, at::MemoryFormat::Contiguous);
    for_blocks(logits, [&](std::int64_t first, std::int64_t rows) {
      Tensor block = result.narrow(0, first, rows);
      at::sub_out(block, logits.narrow(0, first, rows), normaliser.narrow(0, first, rows).unsqueeze(1));
      block.exp_().mul_(scale.narrow(0, first, rows));
    });
    return {result.scatter_add_(1, targets, -scale), {}, {}};
  }
};

const Tensor& get(const Tensors& tensors, const char* name) {
  const auto found = tensors.find(name);
  TESSERA_CHECK(found != tensors.end(), ": cross_entropy needs ", name);
  return found->second;
}

class CrossEntropy final : public Objective {
 public:
  CrossEntropy(const NoSettings&, const Context&) {}

  Value operator()(const Tensors& outputs, const Tensors& batch) const override {
    Tensor logits = get(outputs, "logits").flatten(0, -2);
    if (logits.scalar_type() != at::kDouble) logits = logits.to(at::kFloat);
    const Tensor targets = get(batch, "targets").flatten();
    TESSERA_CHECK_EQ(targets.size(0), logits.size(0));
    Tensor weights = targets.ge(0).to(logits.scalar_type());
    if (batch.contains("weights"))
      weights = weights * get(batch, "weights").flatten().to(logits.scalar_type());
    const Tensor sum = WeightedNll::apply(logits, targets.clamp_min(0).unsqueeze(1), weights);
    return {sum, weights.sum(at::kDouble).item<double>(), {}};
  }

  /// Per position besides the logits: target (two floats wide), weight, normaliser. Backward makes the
  /// logits' gradient while they are still there.
  MemoryStage memory(double units, double outputs) const override {
    const double logits = 4 * units * outputs, block = std::min(logits, 4.0 * (1 << 17));
    return {.name = "cross entropy",
            .kept = logits + 4 * 4 * units,
            .forward = block,
            .backward = logits + 4 * 2 * units};
  }
};

TESSERA_REGISTER(Objective, cross_entropy, CrossEntropy, NoSettings,
                 "cross entropy of the next token, in nats per counted target");

}  // namespace
}  // namespace tessera
