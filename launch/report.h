// What a finished run says for itself: quality beside baselines, what the cut saved, a sample, a plot, and
// where things lie.
#pragma once
#include <memory>
#include <string>

#include "base/error.h"
#include "launch/config/recipe.h"
#include "launch/run_directory.h"

namespace tessera {

/// Prints the report and writes plots/loss.svg.
Status print_report(const RunDirectory& run, std::shared_ptr<const Recipe> recipe);

}  // namespace tessera
