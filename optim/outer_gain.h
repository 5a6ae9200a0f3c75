// outer.lr = "auto": how large an outer step should be, from what a merge itself shows. No grid, no state: a
// function of the contributions and of the momentum that is kept anyway. Derivation: docs/partial-updates.md.
#pragma once
#include <span>

#include "optim/outer.h"

namespace tessera {

/// What the contributions of a merge say about it. Sums run over all coordinates of a kind.
struct OuterSignals {
  double agreement = 0;  ///< mean cosine of two slots' deltas over shared coordinates, clamped to [0, 1]
  double persistence =
      0;  ///< cosine of the merged delta and the momentum over shared coordinates; 0: none yet
  double cut_owners = 1;  ///< contributions behind a cut coordinate, mean by elements
};
OuterSignals signals_of(std::span<const Update> updates);

/// The rate of shared coordinates with this momentum.
double shared_gain(const OuterSignals& signals, double momentum);
/// The rate of cut coordinates with this momentum, in a run of `slots` slots.
double cut_gain(const OuterSignals& signals, double momentum, std::int32_t slots);

}  // namespace tessera
