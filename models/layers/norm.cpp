#include "models/layers/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>

namespace tessera {
namespace {
constexpr double epsilon = 1e-5;
}

at::Tensor layer_norm(const at::Tensor& x, const Parameter& gain, const Parameter* bias) {
  const at::Tensor shift = bias != nullptr ? bias->differentiable() : at::Tensor();
  return at::layer_norm(x, {x.size(-1)}, gain.differentiable(), shift, epsilon);
}

at::Tensor rms_norm(const at::Tensor& x, const Parameter& gain) {
  return x * x.square().mean(-1, /*keepdim=*/true).add(epsilon).rsqrt() * gain.differentiable();
}

}  // namespace tessera
