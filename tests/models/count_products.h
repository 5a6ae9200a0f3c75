// Counts the multiplications of matrix products on this thread: LibTorch's, and those of hand-written
// kernels.
#pragma once
#include <ATen/record_function.h>

#include <memory>
#include <string_view>

#include "base/error.h"
#include "models/layers/flop_count.h"

namespace tessera {

/// Counts from construction to destruction; one at a time per thread.
class ProductCount {
 public:
  ProductCount() {
    total() = 0;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&ProductCount::enter).needsInputs(true));
  }
  ~ProductCount() { at::removeCallback(handle_); }
  ProductCount(const ProductCount&) = delete;
  ProductCount& operator=(const ProductCount&) = delete;
  std::int64_t multiplications() const { return total() + static_cast<std::int64_t>(by_hand_.total()); }

 private:
  static std::int64_t& total() {
    thread_local std::int64_t count = 0;
    return count;
  }
  static std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction& function) {
    if (std::string_view(function.name()) == "aten::mm") {
      const at::Tensor &a = function.inputs()[0].toTensor(), &b = function.inputs()[1].toTensor();
      total() += a.size(0) * a.size(1) * b.size(1);
    }
    return nullptr;
  }
  FlopCounter by_hand_;
  FlopScope scope_{by_hand_};
  at::CallbackHandle handle_;
};

}  // namespace tessera
