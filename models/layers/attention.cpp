#include "models/layers/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>

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

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  TESSERA_CHECK_EQ(q.size(1) % k.size(1), 0);
  // Repeated here, so that the kernel sees equally many heads.
  const std::int64_t times = q.size(1) / k.size(1);
  const at::Tensor y =
      at::scaled_dot_product_attention(q, repeat_heads(k, times), repeat_heads(v, times),
                                       /*attn_mask=*/{}, /*dropout_p=*/0.0, /*is_causal=*/true);
  return y.transpose(1, 2).reshape({q.size(0), q.size(2), q.size(1) * q.size(3)});
}

}  // namespace tessera
