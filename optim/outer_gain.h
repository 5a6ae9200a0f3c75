// outer.lr = "auto": how large an outer step should be, from what a merge itself shows. No grid, no state of
// its own: a function of the contributions and of the momentum that is kept anyway. Derivation:
// docs/partial-updates.md.
#pragma once
#include <span>

#include "optim/outer.h"

namespace tessera {

/// What the contributions of a merge say about it. Sums run over all coordinates of a kind.
struct OuterSignals {
  double agreement = 0;       ///< mean cosine of two slots' deltas over shared coordinates, clamped to [0, 1]
  bool has_agreement = true;  ///< false: nothing shared by several slots has moved
  double persistence =
      0;               ///< cosine of the merged delta and the momentum over shared coordinates; 0: none yet
  double carried = 0;  ///< the momentum's part along the merged delta, in lengths of the delta; at least 0
  double cut_owners = 1;  ///< contributions behind a cut coordinate, mean by elements
};
/// `without_momentum`: it has just been zeroed, whatever the updates' products say.
OuterSignals signals_of(std::span<const Update> updates, bool without_momentum = false);

/// The rate of shared coordinates with this momentum: the whole step, momentum included, goes along the
/// merged delta as far as plain averaging would at a fixed rate.
double shared_gain(const OuterSignals& signals, double momentum, std::int32_t slices);
/// The rate of cut coordinates with this momentum, in a run of `slots` slots: the fewer slots stand behind a
/// coordinate, the less of its merged delta is more than noise; and the more slices jump together, the
/// shorter each has to jump at once.
double cut_gain(const OuterSignals& signals, double momentum, std::int32_t slots, std::int32_t slices);
/// outer.cut_momentum = "auto": what a jump has to leave out now, momentum brings in the merges after it. At
/// least the momentum of what is shared.
double cut_momentum(std::int32_t slices, double shared_momentum);

}  // namespace tessera
