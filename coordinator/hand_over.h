// Moments of inner optimizers that travel: with slices that change owners (partial.rotate_state =
// "hand_over"), or because the method averages them (OuterMethod::merges_per_moment). Contributions bring
// them, the coordinator keeps their mean over the owners as outer state, and the version that they are due
// with brings them to the slots.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/params.h"
#include "base/tensor.h"

namespace tessera {

struct HandOver {
  std::vector<std::string> moments;  ///< of the inner optimizer, that ever travel; empty: none does
  std::vector<std::string> params;   ///< of which they do
  /// Whose rows of a moment a contribution from a version brings.
  std::function<RowSet(const std::string& moment, SlotId, Version)> rows;
  /// Whether a version brings this moment to the slots.
  std::function<bool(const std::string& moment, Version)> is_due;
  bool is_on() const { return !moments.empty(); }
};

/// Zeros, by moment_name of whole parameters.
TensorMap initial_moments(const HandOver& settings, const std::vector<ParamSpec>& specs);

/// Names, shapes and values of a contribution's moments must be exactly those of `rows` (by moment), like its
/// parameters'.
Status validate_moments(const TensorMap& moments, const std::map<std::string, RowSet>& rows,
                        const std::vector<ParamSpec>& specs);

/// Makes what `version` brings: puts the mean over those who brought a row's moments into `state`, in fp64 in
/// the order given (by slot). Rows that nobody brought keep what they had.
void merge_moments(const HandOver& settings, Version version, const std::vector<TensorMap>& brought,
                   const std::vector<ParamSpec>& specs, TensorMap& state);

}  // namespace tessera
