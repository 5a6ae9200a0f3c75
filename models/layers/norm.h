// Normalisation over the last dimension, with a learned gain and (layer norm) an optional bias.
#pragma once
#include "models/parameter.h"

namespace tessera {

/// (x - mean) / sqrt(variance + 1e-5) * gain + bias; `bias` may be null. arXiv 1607.06450.
at::Tensor layer_norm(const at::Tensor& x, const Parameter& gain, const Parameter* bias);

/// x / sqrt(mean(x^2) + 1e-5) * gain. arXiv 1910.07467.
at::Tensor rms_norm(const at::Tensor& x, const Parameter& gain);

}  // namespace tessera
