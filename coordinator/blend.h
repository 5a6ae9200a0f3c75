// How the changes of several contributions become one where they do not all count the same: weights, scales,
// and merging lengths and directions apart (OuterMethod::influence, blend; arXiv 2604.21428). Sums are fp64
// in slot order.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/params.h"
#include "optim/outer.h"

namespace tessera {

struct MergeInput;

/// Where it goes, for rows of one parameter; all zero before.
struct Blended {
  std::span<double> change;        ///< per element
  std::span<std::int32_t> owners;  ///< per row: contributions
  std::span<double> squares;       ///< per row: of all contributions' changes
};

/// Blends what `inputs`, in slot order, hold of the rows `range` of `spec`: as differences from `start`, or
/// as they are where that is empty. Rows that the same inputs hold are one tensor. If all weights are zero,
/// they count the same.
void blend(const OuterMethod& method, const ParamSpec& spec, Rows range,
           const std::vector<const MergeInput*>& inputs, std::span<const float> start, const Blended& into);

}  // namespace tessera
