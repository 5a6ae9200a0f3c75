// Next-token cross entropy in nats: reads outputs["logits"] [B, T, vocab] and batch["targets"] [B, T] int64,
// where a negative target is not counted. Optional batch["weights"] [B, T] weighs each target; the
// denominator is then the counted weight.
//
// Log-probabilities are never stored. In fp32 on the CPU the forward pass takes each exponential once and
// keeps it; the backward pass scales them in place into the gradient. In double and on other devices it keeps
// one log-sum-exp per position, and the gradient is made from it and the logits, on the CPU block by block
// inside the cache.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sub.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "optim/kernels/kernels.h"
#include "optim/objective.h"

namespace tessera {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Tensors = std::map<std::string, Tensor>;

/// Calls visit(first row, rows) for blocks of about 2^17 elements, which stay in the CPU's cache.
template <class Visit>
void for_blocks(const Tensor& matrix, Visit visit) {
  const std::int64_t rows = matrix.size(0),
                     step = matrix.is_cpu() ? std::max<std::int64_t>(1, (1 << 17) / matrix.size(1)) : rows;
  for (std::int64_t first = 0; first < rows; first += step) visit(first, std::min(step, rows - first));
}

/// Whether the own kernels can read and write these logits.
bool has_kernels(const Tensor& logits) {
  return logits.scalar_type() == at::kFloat && logits.is_cpu();
}

constexpr std::int64_t grain(std::int64_t columns) {
  return std::max<std::int64_t>(1, (1 << 15) / columns);
}

/// Normalisers [N] of logits [N, V]; exp(logits - highest) and its sum per row, where they are defined.
Tensor normalisers(const Tensor& logits, const Tensor& exponentials, const Tensor& sums) {
  const std::int64_t rows = logits.size(0), columns = logits.size(1);
  Tensor normaliser = at::empty({rows}, logits.options());
  if (!has_kernels(logits)) {
    for_blocks(logits, [&](std::int64_t first, std::int64_t count) {
      normaliser.narrow(0, first, count).copy_(at::logsumexp(logits.narrow(0, first, count), 1));
    });
    return normaliser;
  }
  const float* const from = logits.const_data_ptr<float>();
  float* const to = exponentials.defined() ? exponentials.mutable_data_ptr<float>() : nullptr;
  float* const out = normaliser.mutable_data_ptr<float>();
  at::parallel_for(0, rows, grain(columns), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float sum;
      out[row] = optim_kernels().exponentials(from + row * columns, columns,
                                              to == nullptr ? nullptr : to + row * columns, &sum);
      if (sums.defined()) sums.mutable_data_ptr<float>()[row] = sum;
    }
  });
  return normaliser;
}

/// logits [N, V], targets [N, 1] >= 0, weights [N] -> sum over n of weights[n] * (logsumexp(logits[n]) -
/// logits[n, target]).
struct WeightedNll : torch::autograd::Function<WeightedNll> {
  static Tensor forward(AutogradContext* ctx, const Tensor& logits, const Tensor& targets,
                        const Tensor& weights) {
    Tensor exponentials, sums;
    if (logits.requires_grad() && has_kernels(logits)) {
      exponentials = at::empty_like(logits);
      sums = at::empty({logits.size(0)}, logits.options());
      ctx->saved_data["exponentials"] = exponentials;
      ctx->saved_data["sums"] = sums;
    }
    const Tensor normaliser = normalisers(logits, exponentials, sums);
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
    Tensor result;
    if (has_kernels(logits)) {
      Tensor sums;
      if (const auto kept = ctx->saved_data.find("exponentials"); kept != ctx->saved_data.end()) {
        result = kept->second.toTensor();
        sums = ctx->saved_data["sums"].toTensor();
        ctx->saved_data.clear();  // they become the gradient; a further backward pass makes them again
      } else {
        result = at::empty_like(logits);
        sums = at::empty({logits.size(0)}, logits.options());
        normalisers(logits, result, sums);
      }
      scale_rows(result, scale.squeeze(1) / sums);
    } else {
      result = at::empty_like(logits, at::MemoryFormat::Contiguous);
      for_blocks(logits, [&](std::int64_t first, std::int64_t rows) {
        Tensor block = result.narrow(0, first, rows);
        at::sub_out(block, logits.narrow(0, first, rows), normaliser.narrow(0, first, rows).unsqueeze(1));
        block.exp_().mul_(scale.narrow(0, first, rows));
      });
    }
    return {result.scatter_add_(1, targets, -scale), {}, {}};
  }

 private:
  /// values [N, V] *= factors [N].
  static void scale_rows(const Tensor& values, const Tensor& factors) {
    const std::int64_t columns = values.size(1);
    float* const data = values.mutable_data_ptr<float>();
    const float* const by = factors.const_data_ptr<float>();
    at::parallel_for(0, values.size(0), grain(columns), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        optim_kernels().scale(data + row * columns, columns, by[row]);
      }
    });
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
    logits = logits.contiguous();
    const Tensor targets = get(batch, "targets").flatten();
    TESSERA_CHECK_EQ(targets.size(0), logits.size(0));
    Tensor weights = targets.ge(0).to(logits.scalar_type());
    if (batch.contains("weights"))
      weights = weights * get(batch, "weights").flatten().to(logits.scalar_type());
    const Tensor sum = WeightedNll::apply(logits, targets.clamp_min(0).unsqueeze(1), weights);
    return {sum, weights.sum(at::kDouble).item<double>(), {}};
  }

  /// Per position besides the logits and their exponentials, which become the gradient: target (two floats
  /// wide), weight, normaliser, sum.
  MemoryStage memory(double units, double outputs) const override {
    return {.name = "cross entropy", .kept = 4 * units * (2 * outputs + 5), .backward = 4 * 3 * units};
  }
};

TESSERA_REGISTER(Objective, cross_entropy, CrossEntropy, NoSettings,
                 "cross entropy of the next token, in nats per counted target");

}  // namespace
}  // namespace tessera
