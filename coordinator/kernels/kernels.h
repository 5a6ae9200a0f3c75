// The loops of a merge over every element, one table per instruction set; the best one that this processor
// has is chosen once. The same bits at every level: nothing is fused or added in another order.
#pragma once
#include <cstddef>

namespace tessera {

struct MergeKernels {
  static constexpr std::size_t lanes = 8;    ///< rows whose squares are added up side by side
  static constexpr std::size_t tile = 1024;  ///< columns at once
  /// difference = start - value, or value where `start` is null; sum becomes 0 + difference (first) or grows
  /// by it; square = difference^2.
  void (*add)(const float* start, const float* value, bool first, double* sum, double* square,
              std::size_t count);
  /// total[r] += squares[r][0], + squares[r][1], ... in this order. Every addition of a row waits for the one
  /// before, so the rows are added up side by side.
  void (*total)(const double (*squares)[tile], std::size_t rows, std::size_t count, double* total);
  void (*scale)(double* values, std::size_t count, double factor);
  /// Adds the sums of d d, d b and b b to sums[0..2], lane by lane: a sum that waits for itself at every
  /// addition takes several times as long. `momentum` may be null: zeros.
  void (*products)(const double* delta, const float* momentum, std::size_t count, double* sums);
  bool (*finite)(const float* values, std::size_t count);
};

const MergeKernels& merge_kernels();

}  // namespace tessera
