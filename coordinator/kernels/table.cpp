// The kernels at one instruction set. Compiled once per level (cmake/TesseraSimd.cmake), which TESSERA_SIMD
// names: nothing here may have external linkage but the table, or one level's code could stand in for
// another's. Plain loops, which the compiler turns into vectors.
#include <cstring>

#include "base/simd_doubles.h"
#include "base/simd_table.h"
#include "coordinator/kernels/kernels.h"

namespace tessera {
namespace {

template <bool is_difference, bool is_first>
double add_as(const float* __restrict start, const float* __restrict value, double* __restrict sum,
              std::size_t count) {
  Doubles squares = {};
  std::size_t i = 0;
  for (; i + double_lanes <= count; i += double_lanes) {
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

}  // namespace

TESSERA_SIMD_TABLE(MergeKernels, merge_kernels) = {.add = add, .scale = scale};

}  // namespace tessera
