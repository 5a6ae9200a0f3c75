// What train and debug do before anything starts: read the recipe, check that its parts fit together, prepare
// the data, make or open the run directory. All of the user's mistakes are found here.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "base/error.h"
#include "launch/commands.h"
#include "launch/config/recipe.h"

namespace tessera {

struct PreparedRun {
  std::shared_ptr<const Recipe> recipe;
  std::string out;   ///< the run directory, made
  std::string unit;  ///< "tokens"
};
Result<PreparedRun> prepare_run(const TrainOptions& options);

/// Says how a run ended: the report when it is done, the line that resumes it when it was stopped, where to
/// look when it failed. Gives the exit code of the process.
int finish_run(const std::string& command, int code, const PreparedRun& prepared,
               const TrainOptions& options);

}  // namespace tessera
