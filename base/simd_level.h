// Which of the instruction sets that kernels are compiled for (cmake/TesseraSimd.cmake) this processor has.
#pragma once

namespace tessera {

enum class SimdLevel { baseline, avx2, avx512 };

inline SimdLevel simd_level() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
    return SimdLevel::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return SimdLevel::avx2;
#endif
  return SimdLevel::baseline;
}

}  // namespace tessera
