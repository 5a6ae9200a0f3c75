// The loops of a merge over every element, one table per instruction set; the best one that this processor
// has is chosen once. The same bits at every level: nothing is fused or added in another order.
#pragma once
#include <cstddef>
#include <vector>

namespace tessera {

struct MergeKernels {
  /// difference = start - value, or value where `start` is null; sum becomes 0 + difference (first) or grows
  /// by it. Returns the sum of the differences' squares, added up in eight lanes: one that waits for itself
  /// at every addition takes several times as long.
  double (*add)(const float* start, const float* value, bool first, double* sum, std::size_t count);
  void (*scale)(double* values, std::size_t count, double factor);
};

const MergeKernels& merge_kernels();
/// All that this processor can run, the best one first.
std::vector<const MergeKernels*> merge_kernels_levels();

}  // namespace tessera
