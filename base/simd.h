// Vectors of floats for hand-written kernels, as wide as the instruction set that the including file is
// compiled for: 16 lanes under AVX-512, 8 under AVX2, 4 elsewhere. Such files are compiled once per level
// (cmake/TesseraSimd.cmake) and chosen at run time (simd_level). Everything here has internal linkage, and
// the files include nothing with shared inline functions, so that no code of a level leaks into the others.
#pragma once
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstdint>

namespace tessera {
namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

using Vec = float __attribute__((vector_size(4 * lanes)));
using IntVec = std::int32_t __attribute__((vector_size(4 * lanes)));
using LooseVec = float __attribute__((vector_size(4 * lanes), aligned(4), may_alias));

inline Vec load(const float* p) {
  return *reinterpret_cast<const LooseVec*>(p);
}
inline void store(float* p, Vec v) {
  *reinterpret_cast<LooseVec*>(p) = v;
}
inline Vec splat(float x) {
  return Vec{} + x;
}
/// The first `count` lanes; the rest are zero.
inline Vec load(const float* p, std::int64_t count) {
  if (count >= lanes) return load(p);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#endif
  Vec v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
}
inline void store(float* p, Vec v, std::int64_t count) {
  if (count >= lanes) return store(p, v);
#if defined(__AVX512F__)
  return _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
#endif
  for (int i = 0; i < count; ++i) p[i] = v[i];
}

/// a * b + c, rounded once where the level has the instruction.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

inline Vec larger(Vec a, Vec b) {
  return a > b ? a : b;
}

/// The lanes added in one fixed order.
inline float sum(Vec v) {
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  }
  return v[0];
}

inline float largest(Vec v) {
  float m = v[0];
  for (int i = 1; i < lanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

/// 0, 1, 2, ...
inline IntVec counting() {
  IntVec v{};
  for (int i = 0; i < lanes; ++i) v[i] = i;
  return v;
}

/// e^x with a relative error below 3e-7; 0 below -87, infinity above 88.7, NaN of NaN.
inline Vec exp(Vec x) {
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec low = splat(-87.33f), high = splat(88.7f);
  const Vec bounded = x < low ? low : (x > high ? high : x);
  const Vec shifted = fma(bounded, splat(1.44269504f), splat(round));
  const Vec n = shifted - round;
  Vec r = fma(n, splat(-0.693359375f), bounded);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r + 1.0f);
  const IntVec exponent = (reinterpret_cast<IntVec>(shifted) + (127 - 0x4B400000)) << 23;
  const Vec power = p * reinterpret_cast<Vec>(exponent);
  const Vec infinity = splat(__builtin_inff());
  return x < low ? Vec{} : (x > high ? infinity : power);
}

}  // namespace
}  // namespace tessera
