// One call of the fast block: its sizes, what its backward pass needs, and its forward pass.
#pragma once
#include <cmath>

#include "models/layers/fast_block.h"

namespace tessera {

/// Sizes of one call, and what its backward pass needs.
struct BlockState {
  FastBlockShape shape;
  FastProducts products;
  std::int64_t batch, length;
  at::Tensor x, cos, sin;
  BlockOptions options;
  ArenaBuffer statistics1, statistics2;  ///< of the norms
  ArenaBuffer normed1, normed2;          ///< outputs of the norms: for gradients of weights only
  ArenaBuffer qkv, attended, normaliser;
  ArenaBuffer middle;    ///< the residual stream after attention
  ArenaBuffer slope;     ///< d hidden / d up, or of swiglu / d gate
  ArenaBuffer slope_up;  ///< swiglu: d hidden / d up
  ArenaBuffer hidden;    ///< owned columns only: for gradients of weights

  std::int64_t rows() const { return batch * length; }
  std::int64_t keys() const { return shape.groups * shape.head_size; }
  std::int64_t queries() const { return shape.heads * shape.head_size; }
  std::int64_t qkv_width() const { return queries() + 2 * keys(); }
  AttentionShape attention() const {
    return {batch,
            length,
            shape.heads,
            shape.groups,
            shape.head_size,
            qkv_width(),
            1.0f / std::sqrt(static_cast<float>(shape.head_size)),
            options.mask.causal,
            options.mask.lengths.defined() ? options.mask.lengths.const_data_ptr<std::int64_t>() : nullptr,
            options.dropout.mask(DropoutPlace::probabilities)};
  }
  /// Turns queries and keys by the angles of their positions, or back.
  void rotate(float* rows_of_qkv, bool back) const;
};

/// x -> the residual stream after attention, in s.middle.
void attend(BlockState& s, const FastBlockParameters& p, bool keep_normed);
/// Gives the hidden units of the MLP.
ArenaBuffer hidden_units(BlockState& s, const FastBlockParameters& p, bool keep_normed);
/// to [rows, width] = residual + (z W + bias), the latter masked by the dropout of `place`.
void project_back(const BlockState& s, const ArenaBuffer& z, const Parameter* weight, const Parameter* bias,
                  const float* residual, DropoutPlace place, float* to);

}  // namespace tessera
