// The pictures of an experiment: held-out loss against tokens, operations, bytes, and time on slow links.
#pragma once
#include <string>
#include <vector>

#include "launch/reproduce/summary.h"

namespace tessera {

/// Links for which time is predicted, Mbit/s in each direction of a slot.
inline constexpr double predicted_links[] = {10, 50, 200};

/// Draws FOLDER/COVER-PLOT-AXIS.svg for every plot of which the cover has two arms; `all_axes`: also against
/// bytes and time. The names of the files, in order.
Result<std::vector<std::string>> draw_plots(const ExperimentSpec& spec, const CoverSpec& cover,
                                            const std::vector<ArmRuns>& runs, bool all_axes,
                                            const std::string& folder);

}  // namespace tessera
