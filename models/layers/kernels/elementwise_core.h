// Norms, activations and sums of rows, at the instruction set of the including file.
#pragma once
#include "base/simd.h"
#include "models/layers/kernels/kernels.h"

namespace tessera {
namespace {

constexpr float norm_epsilon = 1e-5f;

inline void norm_forward(const NormForward& norm, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = norm.width;
  const float share = 1.0f / static_cast<float>(width);
  for (std::int64_t row = begin; row < end; ++row) {
    const float* x = norm.x + row * width;
    float* y = norm.y + row * width;
    float mean = 0;
    if (!norm.rms) {
      Vec total{};
      for (std::int64_t i = 0; i < width; i += lanes) total += load(x + i, width - i);
      mean = sum(total) * share;
    }
    Vec squares{};
    std::int64_t i = 0;
    for (; i + lanes <= width; i += lanes) {
      const Vec centred = load(x + i) - mean;
      squares = fma(centred, centred, squares);
    }
    float square = sum(squares);
    for (; i < width; ++i) square += (x[i] - mean) * (x[i] - mean);
    const float inverse = 1.0f / __builtin_sqrtf(square * share + norm_epsilon);
    norm.statistics[2 * row] = mean;
    norm.statistics[2 * row + 1] = inverse;
    for (std::int64_t j = 0; j < width; j += lanes) {
      const std::int64_t count = width - j;
      Vec value = (load(x + j, count) - mean) * inverse * load(norm.gain + j, count);
      if (norm.bias != nullptr) value += load(norm.bias + j, count);
      store(y + j, value, count);
    }
  }
}

inline void norm_backward(const NormBackward& norm, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = norm.width;
  const float share = 1.0f / static_cast<float>(width);
  for (std::int64_t row = begin; row < end; ++row) {
    const float *x = norm.x + row * width, *dy = norm.dy + row * width;
    const float mean = norm.statistics[2 * row], inverse = norm.statistics[2 * row + 1];
    Vec along{}, total{};
    for (std::int64_t i = 0; i < width; i += lanes) {
      const std::int64_t count = width - i;
      const Vec gradient = load(dy + i, count), scaled = gradient * load(norm.gain + i, count);
      const Vec unit = (load(x + i, count) - mean) * inverse;  // lanes beyond the row meet a gradient of zero
      along = fma(scaled, unit, along);
      total += scaled;
      if (norm.gain_sum != nullptr) {
        store(norm.gain_sum + i, fma(gradient, unit, load(norm.gain_sum + i, count)), count);
      }
      if (norm.bias_sum != nullptr)
        store(norm.bias_sum + i, load(norm.bias_sum + i, count) + gradient, count);
    }
    if (norm.dx == nullptr) continue;
    const float slope = sum(along) * share, shift = norm.rms ? 0.0f : sum(total) * share;
    for (std::int64_t i = 0; i < width; i += lanes) {
      const std::int64_t count = width - i;
      const Vec unit = (load(x + i, count) - mean) * inverse;
      Vec value = (load(dy + i, count) * load(norm.gain + i, count) - shift - unit * slope) * inverse;
      if (norm.residual != nullptr) value += load(norm.residual + row * width + i, count);
      store(norm.dx + row * width + i, value, count);
      if (norm.dx_sum != nullptr) store(norm.dx_sum + i, load(norm.dx_sum + i, count) + value, count);
    }
  }
}

/// The normal distribution below z, and its density. Abramowitz and Stegun 7.1.26: error below 1e-7.
inline Vec normal_below(Vec z, Vec& density) {
  const Vec size = z < 0.0f ? -z : z;
  const Vec gauss = exp(z * z * -0.5f);
  const Vec t = 1.0f / fma(size, splat(0.3275911f * 0.70710678f), splat(1.0f));
  Vec p = splat(0.5f * 1.061405429f);
  p = fma(p, t, splat(0.5f * -1.453152027f));
  p = fma(p, t, splat(0.5f * 1.421413741f));
  p = fma(p, t, splat(0.5f * -0.284496736f));
  p = fma(p, t, splat(0.5f * 0.254829592f));
  const Vec tail = p * t * gauss;
  density = gauss * 0.39894228f;
  return z < 0.0f ? tail : 1.0f - tail;
}

inline void gelu(float* z, float* hidden, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += lanes) {
    const Vec x = load(z + i, count - i);
    Vec density;
    const Vec below = normal_below(x, density);
    store(hidden + i, x * below, count - i);
    store(z + i, fma(x, density, below), count - i);
  }
}

inline void swiglu(float* gate, float* up, float* hidden, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += lanes) {
    const Vec a = load(gate + i, count - i), u = load(up + i, count - i);
    const Vec sigmoid = 1.0f / (1.0f + exp(-a)), silu = a * sigmoid;
    store(hidden + i, silu * u, count - i);
    store(gate + i, u * fma(silu, 1.0f - sigmoid, sigmoid), count - i);
    store(up + i, silu, count - i);
  }
}

inline void scale_rows(const float* a, const float* b, float* out, float* sums, std::int64_t columns,
                       std::int64_t rows) {
  for (std::int64_t row = 0; row < rows; ++row, a += columns, b += columns, out += columns) {
    for (std::int64_t i = 0; i < columns; i += lanes) {
      const std::int64_t count = columns - i;
      const Vec value = load(a + i, count) * load(b + i, count);
      store(out + i, value, count);
      if (sums != nullptr) store(sums + i, load(sums + i, count) + value, count);
    }
  }
}

inline void add_rows(const float* x, std::int64_t stride, float* sums, std::int64_t columns,
                     std::int64_t rows) {
  for (std::int64_t i = 0; i < columns; i += lanes) {
    Vec total = load(sums + i, columns - i);
    for (std::int64_t row = 0; row < rows; ++row) total += load(x + row * stride + i, columns - i);
    store(sums + i, total, columns - i);
  }
}

inline void rotate(float* row, std::int64_t heads, std::int64_t size, const float* cos, const float* sin,
                   bool back) {
  const std::int64_t half = size / 2;
  const float sign = back ? -1.0f : 1.0f;
  for (std::int64_t head = 0; head < heads; ++head, row += size) {
    for (std::int64_t i = 0; i < half; i += lanes) {
      const std::int64_t count = half - i;
      const Vec a = load(row + i, count), b = load(row + half + i, count);
      const Vec c = load(cos + i, count), s = load(sin + i, count) * sign;
      store(row + i, a * c - b * s, count);
      store(row + half + i, b * c + a * s, count);
    }
  }
}

}  // namespace
}  // namespace tessera
