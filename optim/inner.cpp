#include <ATen/ops/zeros_like.h>

#include "optim/inner_state.h"

namespace tessera {

void MomentOptimizer::load(const std::map<std::string, at::Tensor>& state) {
  state_.clear();
  for (const auto& [name, tensor] : state) state_[name] = tensor.detach().clone(at::MemoryFormat::Contiguous);
}

at::Tensor MomentOptimizer::moment(const Piece& piece, const char* name) {
  at::Tensor& tensor = state_[piece.name + "/" + name];
  if (!tensor.defined()) tensor = at::zeros_like(piece.value.detach(), at::MemoryFormat::Contiguous);
  if (tensor.device() != piece.value.device()) tensor = tensor.to(piece.value.device());  // came from a file
  TESSERA_CHECK(tensor.sizes() == piece.value.sizes() && tensor.scalar_type() == piece.value.scalar_type(),
                ": ", name, " of ", piece.name, " has another shape or type than its value");
  return tensor;
}

at::Tensor gradient_of(const Piece& piece) {
  const at::Tensor value = piece.value.detach();
  if (!piece.gradient.defined()) return at::zeros_like(value, at::MemoryFormat::Contiguous);
  TESSERA_CHECK(
      piece.gradient.sizes() == value.sizes() && piece.gradient.scalar_type() == value.scalar_type(),
      ": the gradient of ", piece.name, " has another shape or type than its value");
  return piece.gradient.detach().contiguous();
}

}  // namespace tessera
