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

/// 16 floats in a row, rounded, each in the low half of 32 bits.
inline __m512i rounded(Vec v) {
  return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}

/// Pairs of two rows, element by element.
inline Vec pairs_across(__m512i first, __m512i second) {
  return as_floats(_mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
}
inline Vec pairs_across(Vec first, Vec second) {
  return pairs_across(rounded(first), rounded(second));
}

/// The first `count` of 32 numbers of 16 bits; the rest are zero.
inline __m512i load_halves(const std::uint16_t* p, std::int64_t count) {
  if (count >= 2 * lanes) return _mm512_loadu_si512(p);
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((1u << count) - 1), p);
}

/// One row of a matrix, wherever it lies.
struct Row {
  const float* wide = nullptr;
  const std::uint16_t* half = nullptr;

  Vec along(std::int64_t at, std::int64_t count) const {
    return wide != nullptr ? pairs_along(wide + at, count) : as_floats(load_halves(half + at, count));
  }
  __m512i across(std::int64_t at, std::int64_t count) const {
    if (wide != nullptr) return rounded(load(wide + at, count));
    return _mm512_cvtepu16_epi32(_mm512_castsi512_si256(load_halves(half + at, least(count, lanes))));
  }
};

/// The rows of a matrix, all together. Ask for ascending ones.
struct TogetherRows {
  explicit TogetherRows(MatrixView b) : b(b) {}
  Row operator()(std::int64_t row) { return {b.data + row * b.stride}; }
  MatrixView b;
};

/// The rows of a matrix of several runs. Ask for ascending ones.
struct RunRows {
  explicit RunRows(RunsView b) : run(b.runs), stride(b.stride) {}
  Row operator()(std::int64_t row) {
    while (row - before >= run->rows) before += run++->rows;
    const std::int64_t at = (row - before) * stride;
    return run->wide != nullptr ? Row{run->wide + at} : Row{nullptr, run->half + at};
  }
  const RowRun* run;
  std::int64_t stride, before = 0;
};

/// Packs inner steps [first, first + count) of one panel into pairs: across `count` rows of the matrix, or
/// along the rows of the panel's columns where it is transposed.
template <class Rows>
void pack_panel_bf16(Rows row, bool transposed, std::int64_t first, std::int64_t count, std::int64_t column,
                     std::int64_t columns, float* out) {
  const std::int64_t wide = least(panel, columns - column);
  if (!transposed) {
    for (std::int64_t k = 0; k < count; k += 2) {
      const Row one = row(first + k), two = k + 1 < count ? row(first + k + 1) : Row{};
      for (std::int64_t half = 0; half < panel; half += lanes, out += lanes) {
        const std::int64_t left = wide - half;
        if (left <= 0) {
          store(out, Vec{});
        } else {
          store(out, pairs_across(one.across(column + half, left),
                                  k + 1 < count ? two.across(column + half, left) : _mm512_setzero_si512()));
        }
      }
    }
    return;
  }
  Row rows[panel];
  for (std::int64_t unit = 0; unit < wide; ++unit) rows[unit] = row(column + unit);
  for (std::int64_t k = 0; k < count; k += 2 * lanes) {
    const std::int64_t pairs = least(lanes, (count - k + 1) / 2);
    for (int half = 0; half < 2; ++half) {
      Vec square[lanes];
      for (int i = 0; i < lanes; ++i) {
        const std::int64_t unit = half * lanes + i;
        square[i] = unit < wide ? rows[unit].along(first + k, count - k) : Vec{};
      }
      transpose(square);
      for (int i = 0; i < pairs; ++i) store(out + (k / 2 + i) * panel + half * lanes, square[i]);
    }
  }
}

template <class Rows>
void pack_rows(Rows row, bool transposed, std::int64_t inner, std::int64_t columns, float* out) {
  for (std::int64_t k = 0; k < inner; k += 2 * pair_depth) {
    const std::int64_t count = least(2 * pair_depth, inner - k), pairs = (count + 1) / 2;
    for (std::int64_t column = 0; column < columns; column += panel, out += pairs * panel) {
      pack_panel_bf16(row, transposed, k, count, column, columns, out);
    }
  }
}

void pack_bf16(MatrixView b, std::int64_t inner, std::int64_t columns, float* out) {
  pack_rows(TogetherRows(b), b.transposed, inner, columns, out);
}
void pack_runs_bf16(RunsView b, std::int64_t inner, std::int64_t columns, float* out) {
  pack_rows(RunRows(b), b.transposed, inner, columns, out);
}

void round_bf16(const float* from, std::int64_t count, std::uint16_t* to) {
  for (std::int64_t i = 0; i < count; i += lanes) {
    const std::int64_t here = least(lanes, count - i);
    const auto halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(load(from + i, here)));
    _mm256_mask_storeu_epi16(to + i, static_cast<__mmask16>((1u << here) - 1), halves);
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
const ProductKernels products_avx512_bf16 = {.panel = panel,
                                             .pack = pack_bf16,
                                             .multiply = multiply_bf16,
                                             .pack_runs = pack_runs_bf16,
                                             .round = round_bf16};

}  // namespace tessera
