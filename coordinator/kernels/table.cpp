// The kernels at one instruction set. Compiled once per level (cmake/TesseraSimd.cmake), which TESSERA_SIMD
// names: nothing here may have external linkage but the table, or one level's code could stand in for
// another's. Plain loops, which the compiler turns into vectors.
#include <cstdint>
#include <cstring>

#include "coordinator/kernels/kernels.h"

namespace tessera {
namespace {

constexpr std::size_t lanes = 8;
typedef float Floats __attribute__((vector_size(lanes * sizeof(float))));
typedef double Doubles __attribute__((vector_size(lanes * sizeof(double))));

inline Doubles load(const float* values) {
  Floats loaded;
  std::memcpy(&loaded, values, sizeof loaded);
  return __builtin_convertvector(loaded, Doubles);
}
inline Doubles load(const double* values) {
  Doubles loaded;
  std::memcpy(&loaded, values, sizeof loaded);
  return loaded;
}
inline double total(Doubles sums) {
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

template <bool is_difference, bool is_first>
double add_as(const float* __restrict start, const float* __restrict value, double* __restrict sum,
              std::size_t count) {
  Doubles squares = {};
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Doubles difference = is_difference ? load(start + i) - load(value + i) : load(value + i);
    const Doubles sums = (is_first ? Doubles{} : load(sum + i)) + difference;
    std::memcpy(sum + i, &sums, sizeof sums);
    squares += difference * difference;
  }
  for (; i < count; ++i) {
    const double brought = static_cast<double>(value[i]);
    const double difference = is_difference ? static_cast<double>(start[i]) - brought : brought;
    sum[i] = (is_first ? 0.0 : sum[i]) + difference;
    squares[0] += difference * difference;
  }
  return total(squares);
}

double add(const float* start, const float* value, bool first, double* sum, std::size_t count) {
  if (start != nullptr)
    return first ? add_as<true, true>(start, value, sum, count)
                 : add_as<true, false>(start, value, sum, count);
  return first ? add_as<false, true>(value, value, sum, count)
               : add_as<false, false>(value, value, sum, count);
}

void scale(double* values, std::size_t count, double factor) {
  for (std::size_t i = 0; i < count; ++i) values[i] *= factor;
}

template <bool has_momentum>
void products_with(const double* __restrict delta, const float* __restrict momentum, std::size_t count,
                   double* __restrict sums) {
  Doubles dd = {}, db = {}, bb = {};
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Doubles d = load(delta + i);
    dd += d * d;
    if constexpr (has_momentum) {
      const Doubles b = load(momentum + i);
      db += d * b;
      bb += b * b;
    }
  }
  for (; i < count; ++i) {
    const double d = delta[i], b = has_momentum ? static_cast<double>(momentum[i]) : 0.0;
    dd[0] += d * d, db[0] += d * b, bb[0] += b * b;
  }
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
    .add = add, .scale = scale, .products = products, .finite = finite};

}  // namespace tessera
