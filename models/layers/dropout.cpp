#include "models/layers/dropout.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"

namespace tessera {
namespace {

using at::Tensor;

/// x masked, fp32 on the CPU.
Tensor masked(const Tensor& x, const DropoutMask& mask) {
  const std::int64_t width = x.size(-1), rows = x.numel() / std::max<std::int64_t>(1, width);
  Tensor y = at::empty_like(x);
  const DropRows all{
      .mask = mask, .x = x.const_data_ptr<float>(), .y = y.mutable_data_ptr<float>(), .width = width};
  at::parallel_for(0, rows, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, width)),
                   [&](std::int64_t begin, std::int64_t end) { kernels().drop(all, begin, end); });
  return y;
}

Tensor apply_mask(const Tensor& x, const DropoutMask& mask) {
  if (x.scalar_type() == at::kFloat && x.device().is_cpu()) return masked(x.contiguous(), mask);
  return x.mul(masked(at::ones(x.sizes(), at::kFloat), mask).to(x.options()));
}

/// Its own adjoint.
struct Masking : torch::autograd::Function<Masking> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const DropoutMask& mask) {
    ctx->saved_data["key"] = static_cast<std::int64_t>(mask.key);
    ctx->saved_data["threshold"] = static_cast<std::int64_t>(mask.threshold);
    ctx->saved_data["scale"] = static_cast<double>(mask.scale);
    return apply_mask(x, mask);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& gradients) {
    const DropoutMask mask{static_cast<std::uint64_t>(ctx->saved_data["key"].toInt()),
                           static_cast<std::uint32_t>(ctx->saved_data["threshold"].toInt()),
                           static_cast<float>(ctx->saved_data["scale"].toDouble())};
    return {dropout(gradients[0], mask), Tensor()};
  }
};

}  // namespace

Dropout Dropout::of_layer(std::int64_t layer) const {
  return {rate, key_of({key, static_cast<std::uint64_t>(layer)})};
}

DropoutMask Dropout::mask(DropoutPlace place) const {
  constexpr std::uint64_t purpose = 0x64726f70;  // other draws of the step have others
  const double threshold = std::min(std::round(std::ldexp(rate, 32)), std::ldexp(1, 32) - 1);
  return {key_of({key, purpose, static_cast<std::uint64_t>(place)}), static_cast<std::uint32_t>(threshold),
          static_cast<float>(1 / (1 - std::ldexp(threshold, -32)))};
}

Tensor dropout(const Tensor& x, const DropoutMask& mask) {
  return mask.drops() ? Masking::apply(x, mask) : x;
}

}  // namespace tessera
