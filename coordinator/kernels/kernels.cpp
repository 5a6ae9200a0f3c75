#include "coordinator/kernels/kernels.h"

#include "base/simd_choice.h"

namespace tessera {

TESSERA_SIMD_CHOICE(MergeKernels, merge_kernels, merge_kernels_levels)

}  // namespace tessera
