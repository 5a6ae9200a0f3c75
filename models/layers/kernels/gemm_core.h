// The inner loops of matrix products: `rows` x `panels` tiles that live in registers, over a right operand
// packed into panels. Included by the kernels of each instruction set.
#pragma once
#include "base/simd.h"
#include "models/layers/kernels/gemm.h"

namespace tessera {
namespace {

// A tile is as large as the registers allow: 28 of 32 accumulators under AVX-512, 12 of 16 under AVX2.
constexpr int tile_rows = lanes == 16 ? 14 : 6;
constexpr int panel = 2 * lanes;     ///< columns of a panel
constexpr std::int64_t depth = 256;  ///< of one pass: the sums of passes are added

inline std::int64_t least(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}
constexpr std::int64_t up_to(std::int64_t x, std::int64_t step) {
  return (x + step - 1) / step * step;
}

template <int rows, int vectors>
struct Tile {
  Vec sums[rows][vectors];
};

/// The products of `rows` rows of a with one panel. Element (i, k) of a is a[i * row_step + k * k_step].
template <int rows, int vectors, bool transposed>
inline __attribute__((always_inline)) void multiply_tile(Tile<rows, vectors>& tile, const float* a,
                                                         std::int64_t stride, const float* b,
                                                         std::int64_t count) {
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) tile.sums[i][j] = Vec{};
  }
  for (std::int64_t k = 0; k < count; ++k) {
    Vec right[vectors];
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) right[j] = load(b + k * panel + j * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Vec left = splat(transposed ? a[k * stride + i] : a[i * stride + k]);
#pragma GCC unroll 2
      for (int j = 0; j < vectors; ++j) tile.sums[i][j] = fma(left, right[j], tile.sums[i][j]);
    }
  }
}

/// A part of the packed operand: `count` inner steps of every panel, panels `panel_stride` floats apart.
struct Pass {
  const float* packed;
  std::int64_t count, panel_stride;
};

template <int rows, int vectors>
inline __attribute__((always_inline)) void write_tile(const Tile<rows, vectors>& tile, const Target& target,
                                                      std::int64_t row, std::int64_t column,
                                                      std::int64_t columns) {
#pragma GCC unroll 2
  for (int j = 0; j < vectors; ++j) {
    const std::int64_t at = column + j * lanes, count = columns - at;
    if (count <= 0) return;
    Vec shift{};
    if (target.bias != nullptr) shift = load(target.bias + at, count);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      Vec value = tile.sums[i][j] + shift;
      if (target.addend != nullptr) {
        value += load(target.addend + (row + i) * target.addend_stride + at, count);
      }
      store(target.data + (row + i) * target.stride + at, value, count);
    }
  }
}

/// Rows [row, row + rows) of one pass: `count` steps of the inner dimension over all panels.
template <int rows, bool transposed>
void multiply_rows(const float* a, std::int64_t stride, Pass pass, std::int64_t row, std::int64_t columns,
                   const Target& target) {
  for (std::int64_t column = 0; column < columns; column += panel, pass.packed += pass.panel_stride) {
    if (columns - column > lanes) {
      Tile<rows, 2> tile;
      multiply_tile<rows, 2, transposed>(tile, a, stride, pass.packed, pass.count);
      write_tile(tile, target, row, column, columns);
    } else {
      Tile<rows, 1> tile;
      multiply_tile<rows, 1, transposed>(tile, a, stride, pass.packed, pass.count);
      write_tile(tile, target, row, column, columns);
    }
  }
}

/// Calls run<rows>() for the rows that are left after whole tiles; 0: not at all.
template <class Run>
inline void with_rows(std::int64_t rows, Run run) {
  switch (rows) {
    case 0:
      return;
    case 1:
      return run.template operator()<1>();
    case 2:
      return run.template operator()<2>();
    case 3:
      return run.template operator()<3>();
    case 4:
      return run.template operator()<4>();
    case 5:
      return run.template operator()<5>();
    default:
      break;
  }
  if constexpr (tile_rows > 6) {
    switch (rows) {
      case 6:
        return run.template operator()<6>();
      case 7:
        return run.template operator()<7>();
      case 8:
        return run.template operator()<8>();
      case 9:
        return run.template operator()<9>();
      case 10:
        return run.template operator()<10>();
      case 11:
        return run.template operator()<11>();
      case 12:
        return run.template operator()<12>();
      default:
        return run.template operator()<13>();
    }
  }
}

/// One pass over rows [begin, end): a points at its first inner step of row 0.
template <bool transposed>
void multiply_pass(const float* a, std::int64_t stride, Pass pass, std::int64_t begin, std::int64_t end,
                   std::int64_t columns, const Target& target) {
  const std::int64_t step = transposed ? 1 : stride;
  std::int64_t row = begin;
  for (; row + tile_rows <= end; row += tile_rows) {
    multiply_rows<tile_rows, transposed>(a + row * step, stride, pass, row, columns, target);
  }
  with_rows(end - row, [&]<int rows>() {
    multiply_rows<rows, transposed>(a + row * step, stride, pass, row, columns, target);
  });
}

/// Trades rows and columns of a square of `lanes` vectors.
inline void transpose(Vec (&v)[lanes]) {
  IntVec low{}, high{};
  for (int i = 0; i < lanes; ++i) {
    low[i] = i / 2 + (i % 2) * lanes;
    high[i] = low[i] + lanes / 2;
  }
#pragma GCC unroll 4
  for (int stage = 1; stage < lanes; stage *= 2) {
    Vec next[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) {
      next[2 * i] = __builtin_shuffle(v[i], v[i + lanes / 2], low);
      next[2 * i + 1] = __builtin_shuffle(v[i], v[i + lanes / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) v[i] = next[i];
  }
}

/// Packs inner steps [0, count) of panel `column / panel`; columns beyond the matrix become zero.
inline void pack_panel(MatrixView b, std::int64_t count, std::int64_t column, std::int64_t columns,
                       float* out) {
  const std::int64_t wide = least(panel, columns - column);
  if (!b.transposed) {
    for (std::int64_t k = 0; k < count; ++k) {
      const float* row = b.data + k * b.stride + column;
      store(out + k * panel, load(row, wide));
      store(out + k * panel + lanes, wide > lanes ? load(row + lanes, wide - lanes) : Vec{});
    }
    return;
  }
  for (std::int64_t k = 0; k < count; k += lanes) {
    const std::int64_t inner = least(lanes, count - k);
    for (int half = 0; half < 2; ++half) {
      Vec square[lanes];
      for (int i = 0; i < lanes; ++i) {
        const std::int64_t unit = half * lanes + i;
        square[i] = unit < wide ? load(b.data + (column + unit) * b.stride + k, inner) : Vec{};
      }
      transpose(square);
      for (int i = 0; i < inner; ++i) store(out + (k + i) * panel + half * lanes, square[i]);
    }
  }
}

/// Packs b, [inner, columns], whole: pass by pass, panel by panel.
inline void pack(MatrixView b, std::int64_t inner, std::int64_t columns, float* out) {
  for (std::int64_t k = 0; k < inner; k += depth) {
    const std::int64_t count = least(depth, inner - k);
    const MatrixView part{b.data + (b.transposed ? k : k * b.stride), b.stride, b.transposed};
    for (std::int64_t column = 0; column < columns; column += panel, out += count * panel) {
      pack_panel(part, count, column, columns, out);
    }
  }
}

/// Rows [begin, end) of a [.., inner] times the first `inner` rows and `columns` columns of the packed
/// matrix.
inline void multiply(MatrixView a, Packed b, std::int64_t begin, std::int64_t end, std::int64_t inner,
                     std::int64_t columns, Target target) {
  const float* packed = b.data;
  for (std::int64_t k = 0; k < inner; k += depth) {
    const std::int64_t count = least(depth, inner - k), stored = least(depth, b.inner - k);
    const Pass pass{packed, count, stored * panel};
    if (a.transposed) {
      multiply_pass<true>(a.data + k * a.stride, a.stride, pass, begin, end, columns, target);
    } else {
      multiply_pass<false>(a.data + k, a.stride, pass, begin, end, columns, target);
    }
    packed += stored * up_to(b.columns, panel);
    target.addend = target.data;
    target.addend_stride = target.stride;
    target.bias = nullptr;
  }
}

}  // namespace
}  // namespace tessera
