// Matrix products whose backward computes weight gradients for the owned rows only (arXiv 2509.22418, partial
// updates).
//
// Weights are stored with the dimension that can be cut first: W is [units, width] in both directions. The
// forward pass and the gradient of the activations use the whole W and are exact; dW is one matrix product
// per owned row range, and none at all for a frozen weight. What only frozen gradients would need is not
// kept. Both can be differentiated twice.
#pragma once
#include <cstdint>

#include "models/parameter.h"

namespace tessera {

/// y [..., units] = x [..., width] W^T: the owned rows are output units (up, gate, q, k, v, the output head).
at::Tensor linear_out(const at::Tensor& x, const Parameter& weight);

/// What the backward pass of linear_in holds on to.
enum class Input : std::uint8_t {
  of_this,      ///< nobody else keeps z: copies of its owned columns, so that the rest can go
  kept_anyway,  ///< z stays alive for another node (attention's output does): z itself, and no copy
};
/// y [..., width] = z [..., units] W: the owned rows are input units (down, the attention's output
/// projection).
at::Tensor linear_in(const at::Tensor& z, const Parameter& weight, Input input = Input::of_this);

/// The same in fp16, as hardware does it that sums in fp32: both operands, the result, and the gradients of
/// all three are rounded to fp16 (beyond 65504: infinite). Emulated in fp32, with a copy of the weight.
at::Tensor half_out(const at::Tensor& x, const Parameter& weight);
at::Tensor half_in(const at::Tensor& z, const Parameter& weight);

/// y [..., units] + bias, the bias' gradient summed over its owned entries only.
at::Tensor add_bias(const at::Tensor& y, const Parameter& bias);

}  // namespace tessera
