// Clipping of a step's gradients by their global norm.
#pragma once
#include <string>
#include <vector>

#include "optim/inner.h"

namespace tessera {

/// A slot sees the gradient of its own pieces only, so its norm is smaller than that of the whole model.
struct ClipSettings {
  enum class Mode : std::uint8_t {
    off,
    local,   ///< the norm over the given pieces
    scaled,  ///< times sqrt(P / |I|): what the whole model's norm would be if all coordinates were alike
  };
  Mode mode = Mode::off;
  double max_norm = 1;
};

/// Multiplies all gradients by min(1, max_norm / norm), in place, as torch.nn.utils.clip_grad_norm_ does.
/// `all_parameters` is P, the trainable parameters of the whole model; |I| is counted over the pieces,
/// undefined gradients (zeros) included. The sum of squares is fp64 in the order of the pieces. Returns the
/// norm before clipping, scaled in mode scaled; also in mode off, where nothing changes. A norm that is not
/// finite leaves the gradients alone: the caller decides.
double clip_gradients(const std::vector<Piece>& pieces, const ClipSettings& settings,
                      std::int64_t all_parameters);

}  // namespace tessera
