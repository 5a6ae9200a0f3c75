#include "models/layers/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>
#include <limits>
#include <optional>

#include "base/error.h"

namespace tessera {

Rotary::Rotary(std::int64_t positions, std::int64_t head_dim) : positions_(positions), head_dim_(head_dim) {
  TESSERA_CHECK_EQ(head_dim % 2, 0);
}

void Rotary::filled() const {
  std::call_once(once_, [this] { fill(); });
}

void Rotary::fill() const {
  const std::int64_t half = head_dim_ / 2;
  cos_ = at::empty({positions_, half}, at::kDouble);
  sin_ = at::empty({positions_, half}, at::kDouble);
  for (std::int64_t p = 0; p < positions_; ++p) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) / head_dim_);
      cos_.mutable_data_ptr<double>()[p * half + i] = std::cos(angle);
      sin_.mutable_data_ptr<double>()[p * half + i] = std::sin(angle);
    }
  }
  cos_fp32_ = cos_.to(at::kFloat);
  sin_fp32_ = sin_.to(at::kFloat);
}

at::Tensor Rotary::operator()(const at::Tensor& x) const {
  filled();
  const std::int64_t half = cos_.size(1);
  const at::Tensor cos = cos_.narrow(0, 0, x.size(1)).unsqueeze(1).to(x.options());
  const at::Tensor sin = sin_.narrow(0, 0, x.size(1)).unsqueeze(1).to(x.options());
  const at::Tensor a = x.narrow(3, 0, half), b = x.narrow(3, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 3);
}

namespace {

/// [B, G, T, d] -> [B, G * times, T, d], each head repeated in place.
at::Tensor repeat_heads(const at::Tensor& x, std::int64_t times) {
  if (times == 1) return x;
  const auto b = x.size(0), g = x.size(1), t = x.size(2), d = x.size(3);
  return x.unsqueeze(2).expand({b, g, times, t, d}).reshape({b, g * times, t, d});
}

/// [T, T] or [B, 1, T, T], bool: which pairs (query, key) count. Padding sees itself, since a softmax over
/// nothing is not a number.
at::Tensor allowed_pairs(const AttentionMask& mask, std::int64_t length, at::Device device) {
  const at::Tensor place = at::arange(length, at::TensorOptions().dtype(at::kLong).device(device));
  const at::Tensor key = place.unsqueeze(0), query = place.unsqueeze(1);
  const at::Tensor seen = mask.causal ? key <= query : key >= 0;
  if (!mask.lengths.defined()) return seen.expand({length, length});
  const at::Tensor valid = mask.lengths.to(device).view({-1, 1, 1, 1});
  return (seen & (key < valid) & (query < valid)) | (key == query);
}

}  // namespace

at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionMask& mask, const DropoutMask& dropout) {
  TESSERA_CHECK_EQ(q.size(1) % k.size(1), 0);
  const bool padded = mask.lengths.defined();
  const std::int64_t length = q.size(2);
  // Repeated here, so that the kernel sees equally many heads.
  const std::int64_t times = q.size(1) / k.size(1);
  const at::Tensor keys = repeat_heads(k, times), values = repeat_heads(v, times);
  at::Tensor y;
  if (dropout.drops()) {
    const at::Tensor scores =
        at::matmul(q, keys.transpose(2, 3)).div(std::sqrt(static_cast<double>(q.size(3))));
    const at::Tensor barred = allowed_pairs(mask, length, q.device()).logical_not();
    const at::Tensor probabilities =
        scores.masked_fill(barred, -std::numeric_limits<double>::infinity()).softmax(-1);
    y = at::matmul(tessera::dropout(probabilities, dropout), values);
  } else {
    y = at::scaled_dot_product_attention(
        q, keys, values, padded ? std::optional(allowed_pairs(mask, length, q.device())) : std::nullopt,
        /*dropout_p=*/0.0, /*is_causal=*/mask.causal && !padded);
  }
  y = y.transpose(1, 2).reshape({q.size(0), length, q.size(1) * q.size(3)});
  if (!padded) return y;
  const at::Tensor place = at::arange(length, at::TensorOptions().dtype(at::kLong).device(q.device()));
  return y.masked_fill((place >= mask.lengths.to(q.device()).unsqueeze(1)).unsqueeze(2), 0);
}

}  // namespace tessera
