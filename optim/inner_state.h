// What inner optimizers share: moments by piece and name, and in-place loops over contiguous pieces in their
// own precision.
#pragma once
#include <span>
#include <type_traits>

#include "base/error.h"
#include "optim/inner.h"

namespace tessera {

/// An InnerOptimizer whose state is one tensor like the piece's value per moment name, zero at the start.
class MomentOptimizer : public InnerOptimizer {
 public:
  std::map<std::string, at::Tensor> state() const override { return state_; }
  void load(const std::map<std::string, at::Tensor>& state) override;
  /// Steps by LibTorch's operators on the CPU too, as it does on other devices. For tests.
  void use_operators() { operators_ = true; }

 protected:
  /// Own loops need the CPU's memory.
  bool by_operators(const Piece& piece) const { return operators_ || !piece.value.is_cpu(); }
  /// The tensor "piece/moment", made of zeros when it is not there yet.
  at::Tensor moment(const Piece& piece, const char* name);

 private:
  std::map<std::string, at::Tensor> state_;
  bool operators_ = false;
};

/// The elements of a contiguous CPU tensor.
template <class T>
std::span<T> elements(const at::Tensor& tensor) {
  TESSERA_CHECK(tensor.is_contiguous());
  const auto count = static_cast<std::size_t>(tensor.numel());
  if constexpr (std::is_const_v<T>) {
    return {tensor.const_data_ptr<std::remove_const_t<T>>(), count};
  } else {
    return {tensor.mutable_data_ptr<T>(), count};
  }
}

/// The gradient of a piece, contiguous and outside autograd; zeros where it is undefined.
at::Tensor gradient_of(const Piece& piece);

/// Calls update(value, gradient) with spans of the value's own type, float or double.
template <class Update>
void update_piece(const Piece& piece, Update update) {
  const at::Tensor gradient = gradient_of(piece);
  if (piece.value.scalar_type() == at::kFloat) {
    update(elements<float>(piece.value), elements<const float>(gradient));
  } else {
    TESSERA_CHECK(piece.value.scalar_type() == at::kDouble);
    update(elements<double>(piece.value), elements<const double>(gradient));
  }
  // Raw pointers go round autograd: tell it that the value changed, so that a stale graph is an error, not a
  // wrong number.
  piece.value.unsafeGetTensorImpl()->bump_version();
}

}  // namespace tessera
