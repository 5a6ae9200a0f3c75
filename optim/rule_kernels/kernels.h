// The loops of the outer rules and of DeltaProducts (optim/outer.h), one table per instruction set; the best
// one that this processor has is chosen once. The same bits at every level: nothing is fused or added in
// another order.
#pragma once
#include <cstddef>
#include <vector>

namespace tessera {

struct AdamRule {
  double beta1, beta2, epsilon;
};

/// The rules: fp64 inside, one cast to fp32 on storing.
struct RuleKernels {
  /// theta -= lr delta
  void (*sgd)(double lr, float* theta, const double* delta, std::size_t count);
  /// b = mu b + delta; theta -= lr (delta + mu b)
  void (*nesterov)(double lr, double mu, float* theta, const double* delta, float* momentum,
                   std::size_t count);
  /// m = beta1 m + (1 - beta1) delta; v = beta2 v + (1 - beta2) delta^2; theta -= lr m / (sqrt(v) + epsilon)
  void (*adam)(double lr, AdamRule rule, float* theta, const double* delta, float* momentum, float* variance,
               std::size_t count);
  /// Adds the sums of d d, d b and b b to sums[0..2], in eight lanes: a sum that waits for itself at every
  /// addition takes several times as long. `momentum` may be null: zeros.
  void (*products)(const double* delta, const float* momentum, std::size_t count, double* sums);
};

const RuleKernels& rule_kernels();
/// All that this processor can run, the best one first.
std::vector<const RuleKernels*> rule_kernels_levels();

}  // namespace tessera
