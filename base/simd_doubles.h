// fp64 in eight lanes, for kernel tables (base/simd_table.h): the same sums at every instruction set, one
// instruction each where registers are wide enough. Nothing here has external linkage.
#pragma once
#include <cstddef>
#include <cstring>

namespace tessera {
namespace {

constexpr std::size_t double_lanes = 8;
typedef float Floats __attribute__((vector_size(double_lanes * sizeof(float))));
typedef double Doubles __attribute__((vector_size(double_lanes * sizeof(double))));

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

}  // namespace
}  // namespace tessera
