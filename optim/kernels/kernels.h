// Loops of objectives and inner optimizers in fp32, one table per instruction set; the best one that this
// processor has is chosen once. Plain memory, no threads of their own. Torch-free.
#pragma once
#include <cstdint>
#include <vector>

namespace tessera {

struct AdamFactors {
  float beta1_rest, beta2, beta2_rest;  ///< 1 - beta1, beta2, 1 - beta2
  float step_size, root_correction, eps;
  float l2;    ///< coupled decay: gradient += l2 * value
  float keep;  ///< decoupled decay: value *= keep
};

struct OptimKernels {
  /// logits [columns] -> exponentials[c] = exp(logits[c] - highest), where it is not null; gives the log of
  /// the sum of exp(logits), and that of the exponentials.
  float (*exponentials)(const float* logits, std::int64_t columns, float* exponentials, float* sum);
  void (*scale)(float* values, std::int64_t count, float factor);
  /// One step of Adam. The same bits at every level: nothing is fused or added in another order.
  void (*adam)(float* value, const float* gradient, float* m, float* v, std::int64_t count,
               AdamFactors factors);
};

const OptimKernels& optim_kernels();
/// All that this processor can run, the best one first.
std::vector<const OptimKernels*> optim_kernels_levels();

}  // namespace tessera
