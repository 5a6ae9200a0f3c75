#include "optim/rule_kernels/kernels.h"

#include "base/simd_choice.h"

namespace tessera {

TESSERA_SIMD_CHOICE(RuleKernels, rule_kernels, rule_kernels_levels)

}  // namespace tessera
