#include "optim/kernels/kernels.h"

#include "base/simd_choice.h"

namespace tessera {

TESSERA_SIMD_CHOICE(OptimKernels, optim_kernels, optim_kernels_levels)

}  // namespace tessera
