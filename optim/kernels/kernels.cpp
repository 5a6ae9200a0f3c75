#include "optim/kernels/kernels.h"

#include "base/simd_level.h"

namespace tessera {

extern const OptimKernels optim_kernels_baseline;
#if defined(__x86_64__)
extern const OptimKernels optim_kernels_avx2, optim_kernels_avx512;
#endif

const OptimKernels& optim_kernels() {
#if defined(__x86_64__)
  if (simd_level() == SimdLevel::avx512) return optim_kernels_avx512;
  if (simd_level() == SimdLevel::avx2) return optim_kernels_avx2;
#endif
  return optim_kernels_baseline;
}

}  // namespace tessera
