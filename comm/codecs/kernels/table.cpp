// The loops at one instruction set: plain C++ without branches, which the compiler vectorises. Compiled once
// per level (cmake/TesseraSimd.cmake), which TESSERA_SIMD names: nothing here may have external linkage but
// the table, or one level's code could stand in for another's.
#include "base/simd_table.h"
#include "comm/codecs/kernels/kernels.h"

namespace tessera {
namespace {

using U8 = std::uint8_t;
using U16 = std::uint16_t;
using U32 = std::uint32_t;
using I32 = std::int32_t;

inline U32 bits(float x) {
  return __builtin_bit_cast(U32, x);
}
inline float number(U32 b) {
  return __builtin_bit_cast(float, b);
}

constexpr U32 magnitude = 0x7fffffffu;
constexpr float smallest = 0x1p-100f, too_large = 0x1p120f;
constexpr int lanes = 16;

/// The nearest integer, ties to even, of |x| <= 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
inline I32 nearest(float x) {
  return static_cast<I32>(bits(x + 12582912.0f)) - 0x4B400000;
}

U32 largest(const float* x, std::int64_t count) {
  I32 most = 0;  // signed: every level has that comparison
  for (std::int64_t i = 0; i < count; ++i) {
    const I32 b = static_cast<I32>(bits(x[i]) & magnitude);
    most = b > most ? b : most;
  }
  return static_cast<U32>(most);
}

/// The largest magnitude, where a block with it can be coded; else 0 or NaN, as BlockKernels::scale.
float peak(const float* x, std::int64_t count) {
  const U32 most = largest(x, count);
  if (most >= bits(too_large)) return __builtin_nanf("");
  return most < bits(smallest) ? 0.0f : number(most);
}

// ---- int8: q * scale, q in [-127, 127], scale = largest / 127

float scale_int8(const float* x, std::int64_t count) {
  return peak(x, count) / 127.0f;
}
void encode_int8(const float* __restrict x, std::int64_t count, float scale, U8* __restrict codes) {
  const float inverse = 1.0f / scale;
  for (std::int64_t i = 0; i < count; ++i) codes[i] = static_cast<U8>(nearest(x[i] * inverse));
}
void decode_int8(const U8* __restrict codes, std::int64_t count, float scale, float* __restrict x) {
  for (std::int64_t i = 0; i < count; ++i)
    x[i] = static_cast<float>(static_cast<std::int8_t>(codes[i])) * scale;
}

// ---- two codes of 4 bits a byte, the first one low

template <U32 (*code_of)(float)>
void pack_nibbles(const float* __restrict x, std::int64_t count, float scale, U8* __restrict codes) {
  const float inverse = 1.0f / scale;
  const std::int64_t pairs = count / 2;
  for (std::int64_t i = 0; i < pairs; ++i)
    codes[i] = static_cast<U8>(code_of(x[2 * i] * inverse) | code_of(x[2 * i + 1] * inverse) << 4);
  if (count % 2 == 1) codes[pairs] = static_cast<U8>(code_of(x[count - 1] * inverse));
}
template <float (*value_of)(U32)>
void unpack_nibbles(const U8* __restrict codes, std::int64_t count, float scale, float* __restrict x) {
  const std::int64_t pairs = count / 2;
  for (std::int64_t i = 0; i < pairs; ++i) {
    x[2 * i] = value_of(codes[i] & 15u) * scale;
    x[2 * i + 1] = value_of(codes[i] >> 4) * scale;
  }
  if (count % 2 == 1) x[count - 1] = value_of(codes[pairs] & 15u) * scale;
}

// ---- int4: q * scale, q in [-7, 7], scale = largest / 7; two's complement of 4 bits

inline U32 nibble_of(float y) {
  return static_cast<U32>(nearest(y)) & 15u;
}
inline float signed_nibble(U32 code) {
  return static_cast<float>(static_cast<I32>(code ^ 8u) - 8);
}
float scale_int4(const float* x, std::int64_t count) {
  return peak(x, count) / 7.0f;
}

// ---- int2: (q - 1.5) * scale, q in [0, 3], scale = root mean square; what is larger than 2 scale is clipped

float scale_int2(const float* x, std::int64_t count) {
  const float most = peak(x, count);
  if (!(most > 0.0f)) return most;
  double parts[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int lane = 0; lane < lanes; ++lane) {
      const double value = static_cast<double>(x[i + lane]);
      parts[lane] += value * value;
    }
  }
  double sum = 0;
  for (int lane = 0; lane < lanes; ++lane) sum += parts[lane];
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return static_cast<float>(__builtin_sqrt(sum / static_cast<double>(count)));
}
inline U32 quarter(float y) {
  const float held = y < -2.0f ? -2.0f : (y > 1.5f ? 1.5f : y);
  return static_cast<U32>(nearest(held - 0.5f) + 2) & 3u;  // of the tie below 0 too: -2.5 goes to -2
}
void encode_int2(const float* __restrict x, std::int64_t count, float scale, U8* __restrict codes) {
  const float inverse = 1.0f / scale;
  const std::int64_t fours = count / 4;
  for (std::int64_t i = 0; i < fours; ++i) {
    U32 byte = 0;
    for (int part = 0; part < 4; ++part) byte |= quarter(x[4 * i + part] * inverse) << (2 * part);
    codes[i] = static_cast<U8>(byte);
  }
  U32 last = 0;
  for (std::int64_t i = 4 * fours; i < count; ++i) last |= quarter(x[i] * inverse) << (2 * (i % 4));
  if (count % 4 != 0) codes[fours] = static_cast<U8>(last);
}
void decode_int2(const U8* __restrict codes, std::int64_t count, float scale, float* __restrict x) {
  const std::int64_t fours = count / 4;
  for (std::int64_t i = 0; i < fours; ++i) {
    for (int part = 0; part < 4; ++part)
      x[4 * i + part] = (static_cast<float>(codes[i] >> (2 * part) & 3) - 1.5f) * scale;
  }
  for (std::int64_t i = 4 * fours; i < count; ++i)
    x[i] = (static_cast<float>(codes[fours] >> (2 * (i % 4)) & 3) - 1.5f) * scale;
}

// ---- fp8 e4m3 (1 sign, 4 exponent with bias 7, 3 mantissa; largest 448, no infinity), scale = largest / 448

float scale_fp8(const float* x, std::int64_t count) {
  return peak(x, count) / 448.0f;
}
void encode_fp8(const float* __restrict x, std::int64_t count, float scale, U8* __restrict codes) {
  const float inverse = 1.0f / scale;
  for (std::int64_t i = 0; i < count; ++i) {
    const U32 b = bits(x[i] * inverse), m = b & magnitude;
    const U32 normal = (m + 0x7ffffu + ((m >> 20) & 1u) - (120u << 23)) >> 20;
    const U32 tiny = static_cast<U32>(nearest(number(m < bits(0x1p-6f) ? m : 0) * 512.0f));
    const U32 code = m < bits(0x1p-6f) ? tiny : normal;
    codes[i] = static_cast<U8>((code > 0x7eu ? 0x7eu : code) | b >> 31 << 7);
  }
}
void decode_fp8(const U8* __restrict codes, std::int64_t count, float scale, float* __restrict x) {
  for (std::int64_t i = 0; i < count; ++i) {
    const U32 code = codes[i], m = code & 0x7fu;
    const U32 normal = (m << 20) + (120u << 23);
    const U32 tiny = bits(static_cast<float>(static_cast<I32>(m)) * 0x1p-9f);
    const U32 finite = m < 8u ? tiny : normal;
    x[i] = number((m == 0x7fu ? 0x7fc00000u : finite) | code >> 7 << 31) * scale;
  }
}

// ---- e3m0 (1 sign, 3 exponent): 0 and 2^-6 .. 1 times scale = largest

inline U32 power_code(float y) {
  const U32 b = bits(y), m = b & magnitude;
  const U32 odd = ((m >> 23) - 120u) & 1u;
  const U32 rounded = ((m + 0x3fffffu + odd) >> 23) - 120u;
  const U32 low = m > bits(0x1p-7f) ? 1u : 0u;
  const U32 code = m < bits(0x1p-6f) ? low : rounded;
  return (code > 7u ? 7u : code) | b >> 31 << 3;
}
inline float power_of(U32 code) {
  const U32 e = code & 7u;
  return number((e == 0 ? 0 : (e + 120u) << 23) | (code >> 3 & 1u) << 31);
}

// ---- halves

void to_bf16(const float* __restrict x, std::int64_t count, U16* __restrict codes) {
  for (std::int64_t i = 0; i < count; ++i) {
    const U32 b = bits(x[i]);
    const U32 rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
    codes[i] = static_cast<U16>((b & magnitude) > 0x7f800000u ? b >> 16 | 0x40u : rounded);
  }
}
void from_bf16(const U16* __restrict codes, std::int64_t count, float* __restrict x) {
  for (std::int64_t i = 0; i < count; ++i) x[i] = number(static_cast<U32>(codes[i]) << 16);
}

void to_fp16(const float* __restrict x, std::int64_t count, U16* __restrict codes) {
  for (std::int64_t i = 0; i < count; ++i) {
    const U32 b = bits(x[i]), m = b & magnitude;
    const U32 normal = (m + 0xfffu + ((m >> 13) & 1u) - (112u << 23)) >> 13;
    const U32 tiny = static_cast<U32>(nearest(number(m < bits(0x1p-14f) ? m : 0) * 0x1p24f));
    const U32 finite = m < bits(0x1p-14f) ? tiny : normal;
    const U32 bounded = m >= bits(65520.0f) ? 0x7c00u : finite;
    const U32 code = m > 0x7f800000u ? 0x7e00u | (m >> 13 & 0x1ffu) : bounded;
    codes[i] = static_cast<U16>(code | b >> 31 << 15);
  }
}
void from_fp16(const U16* __restrict codes, std::int64_t count, float* __restrict x) {
  for (std::int64_t i = 0; i < count; ++i) {
    const U32 code = codes[i], m = code & 0x7fffu;
    const U32 tiny = bits(static_cast<float>(static_cast<I32>(m)) * 0x1p-24f);
    const U32 finite = m < 0x400u ? tiny : (m << 13) + (112u << 23);
    x[i] = number((m >= 0x7c00u ? 0x7f800000u | m << 13 : finite) | code >> 15 << 31);
  }
}

// ---- codebooks

using Floats = float __attribute__((vector_size(32)));
using Doubles = double __attribute__((vector_size(64)));
using LooseFloats = float __attribute__((vector_size(32), aligned(4), may_alias));

inline double sum_of(Doubles v) {
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

/// Distances from the first value, so that equal values have no deviation at all.
Moments moments(const float* x, std::int64_t count) {
  const double first = static_cast<double>(x[0]);
  Doubles sums[2] = {}, squares[2] = {};
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const Doubles a =
        __builtin_convertvector(Floats(*reinterpret_cast<const LooseFloats*>(x + i)), Doubles) - first;
    const Doubles b =
        __builtin_convertvector(Floats(*reinterpret_cast<const LooseFloats*>(x + i + 8)), Doubles) - first;
    sums[0] += a;
    sums[1] += b;
    squares[0] += a * a;
    squares[1] += b * b;
  }
  double sum = sum_of(sums[0] + sums[1]), square = sum_of(squares[0] + squares[1]);
  for (; i < count; ++i) {
    const double value = static_cast<double>(x[i]) - first;
    sum += value;
    square += value * value;
  }
  const double mean = sum / static_cast<double>(count);
  const double variance = square / static_cast<double>(count) - mean * mean;
  return {first + mean, variance < 0 ? 0 : __builtin_sqrt(variance)};
}

void bins(const float* __restrict x, std::int64_t count, float low, float inverse, U32* __restrict positions,
          U8* __restrict codes) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float y = (x[i] - low) * inverse;
    const I32 position = static_cast<I32>(y < 0.0f ? 0.0f : (y > 16777215.0f ? 16777215.0f : y));
    positions[i] = static_cast<U32>(position);
    codes[i] = static_cast<U8>(position >> 16);
  }
}
void look_up(const U8* __restrict codes, std::int64_t count, const float* __restrict table,
             float* __restrict x) {
  for (std::int64_t i = 0; i < count; ++i) x[i] = table[codes[i]];
}

}  // namespace

TESSERA_SIMD_TABLE(CodecKernels, codec_kernels) = {
    .int8 = {scale_int8, encode_int8, decode_int8},
    .int4 = {scale_int4, pack_nibbles<nibble_of>, unpack_nibbles<signed_nibble>},
    .int2 = {scale_int2, encode_int2, decode_int2},
    .fp8 = {scale_fp8, encode_fp8, decode_fp8},
    .e3m0 = {peak, pack_nibbles<power_code>, unpack_nibbles<power_of>},
    .to_bf16 = to_bf16,
    .from_bf16 = from_bf16,
    .to_fp16 = to_fp16,
    .from_fp16 = from_fp16,
    .moments = moments,
    .bins = bins,
    .look_up = look_up};

}  // namespace tessera
