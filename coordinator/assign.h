// Who owns which part of a cut, and how large the parts are: the assignments of `partial.assign`.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/cost_model.h"
#include "coordinator/cuts.h"
#include "coordinator/partial_settings.h"

namespace tessera {

/// What does not fit together in assignment and number of slots, as far as it can be said without a model.
Sentences assignment_problems(const PartialSettings& settings, std::int32_t slots);

/// The slots of each part in the first rounds, ascending. The settings have no problems.
std::vector<std::vector<std::int32_t>> owners_of_parts(const PartialSettings& settings, std::int32_t slots);

/// Operations per token of a slot (reference, section 4.2: F + A + W): what every slot spends, and the weight
/// gradients of all that is cut.
struct SlotWork {
  double fixed = 0, cut = 0;
  /// Step time of a slot of this speed with this share of the cut, in arbitrary units.
  double time(double share, double speed) const { return (fixed + cut * share) / speed; }
};
SlotWork work_of(const Divisible& divisible, const CostModel& cost);

/// The share of the cut that each part gets. Balanced: so that the slowest owners of all parts take equally
/// long as far as possible, and no part less than one unit of the group that has the fewest; otherwise all
/// the same.
std::vector<double> shares_of_parts(const PartialSettings& settings,
                                    const std::vector<std::vector<std::int32_t>>& owners,
                                    const Divisible& divisible, const SlotWork& work);

}  // namespace tessera
