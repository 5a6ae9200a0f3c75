// The kernels at one instruction set. Compiled once per level (cmake/TesseraSimd.cmake), which TESSERA_SIMD
// names: nothing here may have external linkage but the table, or one level's code could stand in for
// another's.
#include "base/simd.h"
#include "base/simd_table.h"
#include "optim/kernels/kernels.h"

namespace tessera {
namespace {

float exponentials(const float* logits, std::int64_t columns, float* out, float* sum_out) {
  Vec top = splat(logits[0]);
  std::int64_t i = 0;
  for (; i + lanes <= columns; i += lanes) top = larger(load(logits + i), top);
  float highest = largest(top);
  for (; i < columns; ++i) highest = logits[i] > highest ? logits[i] : highest;
  Vec total{};
  for (i = 0; i + lanes <= columns; i += lanes) {
    const Vec value = exp(load(logits + i) - highest);
    total += value;
    if (out != nullptr) store(out + i, value);
  }
  float rest = 0;
  if (i < columns) {
    const Vec value = exp(load(logits + i, columns - i) - highest);
    for (int lane = 0; lane < columns - i; ++lane) rest += value[lane];
    if (out != nullptr) store(out + i, value, columns - i);
  }
  *sum_out = sum(total) + rest;
  return highest + __builtin_logf(*sum_out);
}

void scale(float* values, std::int64_t count, float factor) {
  for (std::int64_t i = 0; i < count; i += lanes)
    store(values + i, load(values + i, count - i) * factor, count - i);
}

void adam(float* __restrict value, const float* __restrict gradient, float* __restrict m, float* __restrict v,
          std::int64_t count, AdamFactors f) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] + f.l2 * value[i];
    m[i] = m[i] + f.beta1_rest * (g - m[i]);
    v[i] = v[i] * f.beta2 + f.beta2_rest * g * g;
    value[i] = value[i] * f.keep - f.step_size * m[i] / (__builtin_sqrtf(v[i]) / f.root_correction + f.eps);
  }
}

}  // namespace

TESSERA_SIMD_TABLE(OptimKernels, optim_kernels) = {
    .exponentials = exponentials, .scale = scale, .adam = adam};

}  // namespace tessera
