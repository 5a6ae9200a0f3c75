#include "models/layers/kernels/kernels.h"

#include "base/simd_choice.h"

namespace tessera {

TESSERA_SIMD_CHOICE(Kernels, kernels, all_kernels)

#if defined(__x86_64__)
extern const ProductKernels products_avx512_bf16;
#endif

const ProductKernels* bf16_products() {
#if defined(__x86_64__)
  if (simd_level() == SimdLevel::avx512 && __builtin_cpu_supports("avx512bf16")) return &products_avx512_bf16;
#endif
  return nullptr;
}

std::int64_t attention_scratch(const AttentionShape& shape) {
  constexpr std::int64_t panel = 32, block = 56, slack = 16 * 8;  // of the widest level
  const auto up = [](std::int64_t x) { return (x + panel - 1) / panel * panel; };
  const std::int64_t length = up(shape.length), size = up(shape.size);
  return 2 * shape.size * length + shape.length * size + 2 * block * (size + length) + slack;
}

}  // namespace tessera
