// The kernels at one instruction set. Compiled once per level (cmake/TesseraSimd.cmake), which TESSERA_SIMD
// names: nothing here may have external linkage but the table, or one level's code could stand in for
// another's. Plain loops, which the compiler turns into vectors.
#include <cstdint>
#include <cstring>

#include "coordinator/kernels/kernels.h"

namespace tessera {
namespace {

template <bool is_difference, bool is_first>
void add_as(const float* __restrict start, const float* __restrict value, double* __restrict sum,
            double* __restrict square, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const double brought = static_cast<double>(value[i]);
    const double difference = is_difference ? static_cast<double>(start[i]) - brought : brought;
    sum[i] = (is_first ? 0.0 : sum[i]) + difference;
    square[i] = difference * difference;
  }
}

void add(const float* start, const float* value, bool first, double* sum, double* square, std::size_t count) {
  if (start != nullptr)
    first ? add_as<true, true>(start, value, sum, square, count)
          : add_as<true, false>(start, value, sum, square, count);
  else
    first ? add_as<false, true>(value, value, sum, square, count)
          : add_as<false, false>(value, value, sum, square, count);
}

void total(const double (*squares)[MergeKernels::tile], std::size_t rows, std::size_t count, double* total) {
  if (rows != MergeKernels::lanes) {
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t i = 0; i < count; ++i) total[r] += squares[r][i];
    }
    return;
  }
  static_assert(MergeKernels::lanes == 8);
  double a = total[0], b = total[1], c = total[2], d = total[3];
  double e = total[4], f = total[5], g = total[6], h = total[7];
  for (std::size_t i = 0; i < count; ++i) {
    a += squares[0][i], b += squares[1][i], c += squares[2][i], d += squares[3][i];
    e += squares[4][i], f += squares[5][i], g += squares[6][i], h += squares[7][i];
  }
  total[0] = a, total[1] = b, total[2] = c, total[3] = d;
  total[4] = e, total[5] = f, total[6] = g, total[7] = h;
}

void scale(double* values, std::size_t count, double factor) {
  for (std::size_t i = 0; i < count; ++i) values[i] *= factor;
}

double total(const double* lanes) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

template <bool has_momentum>
void products_with(const double* __restrict delta, const float* __restrict momentum, std::size_t count,
                   double* __restrict sums) {
  constexpr std::size_t lanes = 8;
  double dd[lanes] = {}, db[lanes] = {}, bb[lanes] = {};
  const auto add = [&](std::size_t i, std::size_t lane) {
    const double d = delta[i];
    dd[lane] += d * d;
    if constexpr (has_momentum) {
      const double b = static_cast<double>(momentum[i]);
      db[lane] += d * b;
      bb[lane] += b * b;
    }
  };
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) add(i + lane, lane);
  }
  for (; i < count; ++i) add(i, 0);
  sums[0] += total(dd), sums[1] += total(db), sums[2] += total(bb);
}

void products(const double* delta, const float* momentum, std::size_t count, double* sums) {
  momentum == nullptr ? products_with<false>(delta, nullptr, count, sums)
                      : products_with<true>(delta, momentum, count, sums);
}

/// Infinities and NaNs are those whose exponent is all ones.
bool finite(const float* values, std::size_t count) {
  std::uint32_t bad = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    bad |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return bad == 0;
}

}  // namespace

#define TESSERA_JOIN(a, b) a##b
#define TESSERA_TABLE(name) TESSERA_JOIN(merge_kernels_, name)
extern const MergeKernels TESSERA_TABLE(TESSERA_SIMD);
const MergeKernels TESSERA_TABLE(TESSERA_SIMD) = {
    .add = add, .total = total, .scale = scale, .products = products, .finite = finite};

}  // namespace tessera
