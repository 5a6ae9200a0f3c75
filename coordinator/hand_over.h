// Moments of inner optimizers that travel with slices when these change owners (partial.rotate_state =
// "hand_over"): contributions bring them, the coordinator keeps their mean over the owners as outer state,
// and the version at which owners change brings them to the new ones.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/params.h"
#include "base/tensor.h"

namespace tessera {

struct HandOver {
  std::vector<std::string> moments;             ///< of the inner optimizer; empty: nothing is handed over
  std::vector<std::string> params;              ///< that are cut
  std::function<RowSet(SlotId, Version)> rows;  ///< whose moments a contribution from a version brings
  std::function<bool(Version)> is_due;          ///< whether a version brings moments to new owners
  bool is_on() const { return !moments.empty(); }
};

/// Zeros, by moment_name of whole parameters.
TensorMap initial_moments(const HandOver& settings, const std::vector<ParamSpec>& specs);

/// Names, shapes and values of a contribution's moments must be exactly those of `rows`, like its
/// parameters'.
Status validate_moments(const HandOver& settings, const TensorMap& moments, const RowSet& rows,
                        const std::vector<ParamSpec>& specs);

/// Puts the mean over those who brought a row's moments into `state`, in fp64 in the order given (by slot).
/// Rows that nobody brought keep what they had.
void merge_moments(const HandOver& settings, const std::vector<TensorMap>& brought,
                   const std::vector<ParamSpec>& specs, TensorMap& state);

}  // namespace tessera
