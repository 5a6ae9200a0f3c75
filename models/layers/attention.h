// Scaled-dot-product attention with grouped key/value heads, and rotary positions.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <mutex>

#include "models/layers/block_options.h"

namespace tessera {

/// Angles of rotary positions (arXiv 2104.09864, eq. 34, base 10000): position p turns the pair (i, i + d/2)
/// of a head by p * 10000^(-2i/d). The halves are paired as Hugging Face's Llama does, not neighbours.
class Rotary {
 public:
  Rotary(std::int64_t positions, std::int64_t head_dim);  ///< costs nothing before it is used
  /// x [B, T, H, head_dim] at positions 0..T-1.
  at::Tensor operator()(const at::Tensor& x) const;

  /// The tables in fp32, [positions, head_dim / 2].
  const at::Tensor& cos() const { return filled(), cos_fp32_; }
  const at::Tensor& sin() const { return filled(), sin_fp32_; }

 private:
  void filled() const;
  void fill() const;
  std::int64_t positions_, head_dim_;
  mutable std::once_flag once_;
  mutable at::Tensor cos_, sin_;  ///< [positions, head_dim / 2], double
  mutable at::Tensor cos_fp32_, sin_fp32_;
};

/// q [B, H, T, d], k and v [B, G, T, d] with H a multiple of G: query head h reads key/value head h / (H/G).
/// Gives [B, T, H*d]. Dropout of the probabilities: the mask's rows are (sequence, head, query).
at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionMask& mask, const DropoutMask& dropout);

}  // namespace tessera
