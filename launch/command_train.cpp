// tessera train: coordinator and workers as processes of this machine, supervised, with a line per round and
// a report at the end.
#include <cstdio>
#include <filesystem>

#include "launch/commands.h"
#include "launch/prepare_run.h"
#include "launch/report.h"
#include "launch/run_processes.h"

namespace tessera {

int command_train(const TrainOptions& options) {
  Result<PreparedRun> prepared = prepare_run(options);
  if (!prepared.ok()) return report(prepared.error());
  const Recipe& recipe = *prepared->recipe;
  const RunDirectory run(prepared->out);
  std::error_code ignored;
  std::filesystem::remove(run.endpoints(), ignored);  // a former coordinator's
  std::vector<ChildSpec> children = {coordinator_child(run, options.resume)};
  for (std::int64_t i = 0; i < recipe.workers; ++i) {
    children.push_back(worker_child(run, recipe.net, i, worker_capacity(recipe, recipe.workers)));
  }
  const int code = supervise(
      run, std::move(children),
      {.resume = options.resume, .quiet = options.quiet, .unit = prepared->unit, .rounds = recipe.rounds});
  return finish_run("train", code, *prepared, options);
}

}  // namespace tessera
