#include "models/layers/kernels/kernels.h"

#include "base/simd_level.h"

namespace tessera {

extern const Kernels kernels_baseline;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512;
extern const ProductKernels products_avx512_bf16;
#endif

std::vector<const Kernels*> all_kernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__)
  if (simd_level() >= SimdLevel::avx512) usable.push_back(&kernels_avx512);
  if (simd_level() >= SimdLevel::avx2) usable.push_back(&kernels_avx2);
#endif
  usable.push_back(&kernels_baseline);
  return usable;
}

const ProductKernels* bf16_products() {
#if defined(__x86_64__)
  if (simd_level() == SimdLevel::avx512 && __builtin_cpu_supports("avx512bf16")) return &products_avx512_bf16;
#endif
  return nullptr;
}

const Kernels& kernels() {
  static const Kernels& best = *all_kernels().front();
  return best;
}

std::int64_t attention_scratch(const AttentionShape& shape) {
  constexpr std::int64_t panel = 32, block = 56, slack = 16 * 8;  // of the widest level
  const auto up = [](std::int64_t x) { return (x + panel - 1) / panel * panel; };
  const std::int64_t length = up(shape.length), size = up(shape.size);
  return 2 * shape.size * length + shape.length * size + 2 * block * (size + length) + slack;
}

}  // namespace tessera
