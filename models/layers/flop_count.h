// Counts the multiply-adds of the hand-written products, which LibTorch's observers do not see. A count is
// taken where a product is started, from its shape, apart from what predicts costs.
#pragma once
#include <cstdint>

namespace tessera {

/// What a product is for.
enum class FlopKind : std::uint8_t { forward, activation_gradient, weight_gradient };

struct FlopCounter {
  double forward = 0, activation_gradient = 0, weight_gradient = 0;  ///< multiply-adds: 2 FLOP each

  void add(FlopKind kind, double multiply_adds) {
    (kind == FlopKind::forward               ? forward
     : kind == FlopKind::activation_gradient ? activation_gradient
                                             : weight_gradient) += multiply_adds;
  }
  double total() const { return forward + activation_gradient + weight_gradient; }
};

namespace detail {
inline FlopCounter*& flop_counter() {
  thread_local FlopCounter* counter = nullptr;
  return counter;
}
}  // namespace detail

/// Counts into `counter` what this thread starts while the scope lives; scopes nest, the innermost counts.
class FlopScope {
 public:
  explicit FlopScope(FlopCounter& counter) : outer_(detail::flop_counter()) {
    detail::flop_counter() = &counter;
  }
  ~FlopScope() { detail::flop_counter() = outer_; }
  FlopScope(const FlopScope&) = delete;
  FlopScope& operator=(const FlopScope&) = delete;

 private:
  FlopCounter* outer_;
};

inline void count_flops(FlopKind kind, double multiply_adds) {
  if (detail::flop_counter() != nullptr) detail::flop_counter()->add(kind, multiply_adds);
}

}  // namespace tessera
