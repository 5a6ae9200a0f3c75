#include "optim/rule_kernels/kernels.h"

#include "base/simd_level.h"

namespace tessera {

extern const RuleKernels rule_kernels_baseline;
#if defined(__x86_64__)
extern const RuleKernels rule_kernels_avx2, rule_kernels_avx512;
#endif

const RuleKernels& rule_kernels() {
#if defined(__x86_64__)
  if (simd_level() == SimdLevel::avx512) return rule_kernels_avx512;
  if (simd_level() == SimdLevel::avx2) return rule_kernels_avx2;
#endif
  return rule_kernels_baseline;
}

}  // namespace tessera
