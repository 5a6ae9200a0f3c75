// Dropout (JMLR 15:1929, scaled in training by 1 / (1 - rate)) whose masks are functions of a key: nothing is
// stored, and whoever computes a step again, in whatever order, drops the same elements.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/layers/kernels/kernels.h"

namespace tessera {

/// Where a transformer drops (GPT-2's places, with both residual ones told apart).
enum class DropoutPlace : std::uint8_t { embedding, probabilities, attention, mlp };

/// The dropout of one training step, or of one of its layers.
struct Dropout {
  double rate = 0;  ///< [0, 1)
  std::uint64_t key = 0;

  Dropout of_layer(std::int64_t layer) const;
  DropoutMask mask(DropoutPlace place) const;
};

/// x masked, where the mask's rows run over the last dimension of x. Can be differentiated any number of
/// times and keeps nothing for that.
at::Tensor dropout(const at::Tensor& x, const DropoutMask& mask);

}  // namespace tessera
