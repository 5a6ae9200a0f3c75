#include "comm/codecs/kernels/kernels.h"

#include "base/simd_choice.h"

namespace tessera {

TESSERA_SIMD_CHOICE(CodecKernels, codec_kernels, codec_kernels_levels)

}  // namespace tessera
