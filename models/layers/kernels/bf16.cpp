// Products of fp32 matrices whose operands are rounded to bf16 on the way in, with sums in fp32: twice the
// multiply-adds per instruction (vdpbf16ps). Compiled for AVX512-BF16 alone (models/CMakeLists.txt), so
// nothing here may have external linkage but the table.
#include "models/layers/kernels/gemm_core.h"
#include "models/layers/kernels/kernels.h"

namespace tessera {
namespace {

static_assert(lanes == 16);
using Pair = std::uint32_t;               ///< two steps of the inner dimension, the first in the low half
constexpr std::int64_t pair_depth = 256;  ///< pairs of one pass

inline Vec as_floats(__m512i pairs) {
  return reinterpret_cast<Vec>(pairs);
}

/// 32 floats in a row as 16 pairs.
inline Vec pairs_along(const float* p, std::int64_t count) {
  const Vec low = load(p, count), high = count > lanes ? load(p + lanes, count - lanes) : Vec{};
  return as_floats(reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

/// Pairs of two rows, element by element.
inline Vec pairs_across(Vec first, Vec second) {
  const auto wide = [](Vec v) {
    return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
  };
  return as_floats(_mm512_or_si512(wide(first), _mm512_slli_epi32(wide(second), 16)));
}

/// Packs `count` inner steps of one panel into pairs.
void pack_panel_bf16(MatrixView b, std::int64_t count, std::int64_t column, std::int64_t columns,
                     float* out) {
  const std::int64_t wide = least(panel, columns - column);
  if (!b.transposed) {
    for (std::int64_t k = 0; k < count; k += 2) {
      for (std::int64_t half = 0; half < panel; half += lanes, out += lanes) {
        const float* const row = b.data + k * b.stride + column + half;
        if (half >= wide) {
          store(out, Vec{});
        } else {
          store(out, pairs_across(load(row, wide - half),
                                  k + 1 < count ? load(row + b.stride, wide - half) : Vec{}));
        }
      }
    }
    return;
  }
  for (std::int64_t k = 0; k < count; k += 2 * lanes) {
    const std::int64_t pairs = least(lanes, (count - k + 1) / 2);
    for (int half = 0; half < 2; ++half) {
      Vec square[lanes];
      for (int i = 0; i < lanes; ++i) {
        const std::int64_t unit = half * lanes + i;
        square[i] = unit < wide ? pairs_along(b.data + (column + unit) * b.stride + k, count - k) : Vec{};
      }
      transpose(square);
      for (int i = 0; i < pairs; ++i) store(out + (k / 2 + i) * panel + half * lanes, square[i]);
    }
  }
}

void pack_bf16(MatrixView b, std::int64_t inner, std::int64_t columns, float* out) {
  for (std::int64_t k = 0; k < inner; k += 2 * pair_depth) {
    const std::int64_t count = least(2 * pair_depth, inner - k), pairs = (count + 1) / 2;
    const MatrixView part{b.data + (b.transposed ? k : k * b.stride), b.stride, b.transposed};
    for (std::int64_t column = 0; column < columns; column += panel, out += pairs * panel) {
      pack_panel_bf16(part, count, column, columns, out);
    }
  }
}

/// Left pairs of one tile: pair p of row i is at [i * pair_depth + p], or transposed at [p * lanes + i].
template <int rows, bool transposed>
inline void gather_left(const float* a, std::int64_t stride, std::int64_t count, float* left) {
  if constexpr (transposed) {
    for (std::int64_t k = 0; k < count; k += 2) {
      const Vec second = k + 1 < count ? load(a + (k + 1) * stride, rows) : Vec{};
      store(left + k / 2 * lanes, pairs_across(load(a + k * stride, rows), second));
    }
  } else {
    for (int i = 0; i < rows; ++i) {
      for (std::int64_t k = 0; k < count; k += 2 * lanes) {
        store(left + i * pair_depth + k / 2, pairs_along(a + i * stride + k, count - k));
      }
    }
  }
}

template <int rows, bool transposed>
void multiply_rows_bf16(const float* a, std::int64_t stride, std::int64_t count, const float* packed,
                        std::int64_t panel_stride, std::int64_t row, std::int64_t columns,
                        const Target& target) {
  alignas(64) float left[pair_depth * lanes];
  gather_left<rows, transposed>(a, stride, count, left);
  const std::int64_t pairs = (count + 1) / 2;
  for (std::int64_t column = 0; column < columns; column += panel, packed += panel_stride) {
    Tile<rows, 2> tile;
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) tile.sums[i][0] = tile.sums[i][1] = Vec{};
    for (std::int64_t p = 0; p < pairs; ++p) {
      const auto right0 = reinterpret_cast<__m512bh>(load(packed + p * panel));
      const auto right1 = reinterpret_cast<__m512bh>(load(packed + p * panel + lanes));
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const auto both =
            reinterpret_cast<__m512bh>(splat(left[transposed ? p * lanes + i : i * pair_depth + p]));
        tile.sums[i][0] = _mm512_dpbf16_ps(tile.sums[i][0], both, right0);
        tile.sums[i][1] = _mm512_dpbf16_ps(tile.sums[i][1], both, right1);
      }
    }
    write_tile(tile, target, row, column, columns);
  }
}

template <bool transposed>
void multiply_pass_bf16(const float* a, std::int64_t stride, std::int64_t count, const float* packed,
                        std::int64_t panel_stride, std::int64_t begin, std::int64_t end, std::int64_t columns,
                        const Target& target) {
  const std::int64_t step = transposed ? 1 : stride;
  std::int64_t row = begin;
  const auto tile = [&]<int rows>() {
    multiply_rows_bf16<rows, transposed>(a + row * step, stride, count, packed, panel_stride, row, columns,
                                         target);
  };
  for (; row + tile_rows <= end; row += tile_rows) tile.template operator()<tile_rows>();
  with_rows(end - row, tile);
}

void multiply_bf16(MatrixView a, Packed b, std::int64_t begin, std::int64_t end, Target target) {
  const float* packed = b.data;
  for (std::int64_t k = 0; k < b.inner; k += 2 * pair_depth) {
    const std::int64_t count = least(2 * pair_depth, b.inner - k), panel_stride = (count + 1) / 2 * panel;
    if (a.transposed) {
      multiply_pass_bf16<true>(a.data + k * a.stride, a.stride, count, packed, panel_stride, begin, end,
                               b.columns, target);
    } else {
      multiply_pass_bf16<false>(a.data + k, a.stride, count, packed, panel_stride, begin, end, b.columns,
                                target);
    }
    packed += (count + 1) / 2 * up_to(b.columns, panel);
    target.addend = target.data;
    target.addend_stride = target.stride;
    target.bias = nullptr;
  }
}

}  // namespace

extern const ProductKernels products_avx512_bf16;
const ProductKernels products_avx512_bf16 = {.panel = panel, .pack = pack_bf16, .multiply = multiply_bf16};

}  // namespace tessera
