#include "comm/codecs/kernels/kernels.h"

#include "base/simd_level.h"

namespace tessera {

extern const CodecKernels codec_kernels_baseline;
#if defined(__x86_64__)
extern const CodecKernels codec_kernels_avx2, codec_kernels_avx512;
#endif

const CodecKernels& codec_kernels() {
#if defined(__x86_64__)
  if (simd_level() == SimdLevel::avx512) return codec_kernels_avx512;
  if (simd_level() == SimdLevel::avx2) return codec_kernels_avx2;
#endif
  return codec_kernels_baseline;
}

}  // namespace tessera
