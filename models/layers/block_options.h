// What a call of a transformer block says besides its input and parameters.
#pragma once
#include <ATen/core/Tensor.h>

#include "models/layers/dropout.h"

namespace tessera {

/// To which positions a position attends.
struct AttentionMask {
  bool causal = true;  ///< itself and those before it; false: all
  /// [B], int64, CPU, each 0..T: valid positions of each sequence; the rest is padding at its end, to which
  /// nothing attends, where attention gives zeros, and through whose attention no gradient goes. Undefined:
  /// all.
  at::Tensor lengths{};
};

struct BlockOptions {
  AttentionMask mask{};
  Dropout dropout{};  ///< of this layer and step; rate 0: none
};

}  // namespace tessera
