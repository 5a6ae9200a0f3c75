// Which elements dropout drops, at the instruction set of the including file: a counter-based generator, so
// that nothing is stored and the backward pass makes the same masks again.
#pragma once
#include "base/simd.h"
#include "models/layers/kernels/kernels.h"

namespace tessera {
namespace {

using WordVec = std::uint32_t __attribute__((vector_size(4 * lanes)));

/// Two words of key for the elements of one row.
struct RowKey {
  std::uint32_t first, second;
};

/// SplitMix64's finaliser over key and row (base/random.h has it too, but as a shared inline function).
inline RowKey row_key(const DropoutMask& mask, std::int64_t row) {
  std::uint64_t x = mask.key + (static_cast<std::uint64_t>(row) + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  x ^= x >> 31;
  return {static_cast<std::uint32_t>(x), static_cast<std::uint32_t>(x >> 32)};
}

/// Factors of the elements in `lanes` columns: 0, or 1 / (1 - rate). The words are a hash of the column by
/// two rounds of multiply and xor-shift (C. Wellons, hash-prospector: lowbias32), with the row's key before
/// the first and between the two: rows do not become shifted copies of one another.
inline Vec mask_factors(const DropoutMask& mask, RowKey row, std::int64_t column) {
  WordVec x = reinterpret_cast<WordVec>(counting()) + (static_cast<std::uint32_t>(column) + row.first);
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= row.second;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x >= mask.threshold ? splat(mask.scale) : Vec{};
}

/// One row in place.
inline void drop_row(float* x, std::int64_t columns, const DropoutMask& mask, std::int64_t row) {
  const RowKey key = row_key(mask, row);
  for (std::int64_t i = 0; i < columns; i += lanes) {
    const std::int64_t count = columns - i;
    store(x + i, load(x + i, count) * mask_factors(mask, key, i), count);
  }
}

inline void drop(const DropRows& rows, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = rows.width;
  for (std::int64_t row = begin; row < end; ++row) {
    const RowKey key = row_key(rows.mask, row);
    const float* const x = rows.x + row * width;
    float* const y = rows.y + row * width;
    for (std::int64_t i = 0; i < width; i += lanes) {
      const std::int64_t count = width - i;
      Vec value = load(x + i, count) * mask_factors(rows.mask, key, i);
      if (rows.residual != nullptr) value += load(rows.residual + row * width + i, count);
      store(y + i, value, count);
    }
  }
}

}  // namespace
}  // namespace tessera
