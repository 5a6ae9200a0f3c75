#include "coordinator/kernels/kernels.h"

#include "base/simd_level.h"

namespace tessera {

extern const MergeKernels merge_kernels_baseline;
#if defined(__x86_64__)
extern const MergeKernels merge_kernels_avx2, merge_kernels_avx512;
#endif

const MergeKernels& merge_kernels() {
#if defined(__x86_64__)
  if (simd_level() == SimdLevel::avx512) return merge_kernels_avx512;
  if (simd_level() == SimdLevel::avx2) return merge_kernels_avx2;
#endif
  return merge_kernels_baseline;
}

}  // namespace tessera
