// Counts the floating-point operations of matrix products from the operators that LibTorch really executes on
// a thread, by the shapes of their operands. Knows nothing of models, plans or formulas: it is what the
// formulas of base/cost_model.h are tested against.
//
// A multiplication with its addition counts as 2. A fused attention kernel counts by what its mathematics
// needs (two products forward, four backward; that it computes the scores again is not counted), half of that
// when it is causal. Element-wise operators, norms, softmax and look-ups are not counted; a product that this
// file does not know how to count aborts, so that no number is silently too small.
#pragma once
#include <ATen/record_function.h>

#include "models/layers/flop_count.h"

namespace tessera {

/// Counts from construction to destruction what the constructing thread executes; at most one per thread.
class OperatorFlops {
 public:
  OperatorFlops();
  ~OperatorFlops();
  OperatorFlops(const OperatorFlops&) = delete;
  OperatorFlops& operator=(const OperatorFlops&) = delete;

  double forward() const { return forward_ + 2 * own_kernels_.forward; }  ///< outside of backward passes
  double backward() const {                                               ///< inside
    return backward_ + 2 * (own_kernels_.activation_gradient + own_kernels_.weight_gradient);
  }
  double total() const { return forward() + backward(); }

 private:
  static std::unique_ptr<at::ObserverContext> enter_operator(const at::RecordFunction& function);
  static std::unique_ptr<at::ObserverContext> enter_node(const at::RecordFunction& function);
  static void leave_node(const at::RecordFunction& function, at::ObserverContext* context);

  double forward_ = 0, backward_ = 0;
  int nodes_deep_ = 0;  ///< nested backward nodes under way
  at::CallbackHandle operators_, nodes_;
  FlopCounter own_kernels_;
  FlopScope scope_{own_kernels_};
};

}  // namespace tessera
