// tessera run: the role comes from the launcher. Under mpirun and srun every rank is a small supervisor that
// does not call MPI_Init (a dead rank would end the job) and keeps one child alive: rank 0 the coordinator,
// every other rank a worker.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "launch/commands.h"
#include "launch/prepare_run.h"
#include "launch/run_processes.h"

namespace tessera {
namespace {

struct Rank {
  std::int64_t rank = 0, size = 1;
  std::string job;         ///< names this start of the job, equal on all ranks
  bool restarted = false;  ///< requeued by the launcher: go on with what is there
};

std::optional<std::int64_t> number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? std::nullopt : std::optional<std::int64_t>(std::atoll(text));
}

std::string text_of(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

Result<Rank> rank_from_launcher() {
  for (const auto& [rank, size, job] :
       {std::array{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE"},
        std::array{"SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"}}) {
    if (number(rank) && number(size)) {
      return Rank{*number(rank), *number(size), text_of(job), number("SLURM_RESTART_COUNT").value_or(0) > 0};
    }
  }
  return fail(ExitCode::usage,
              "tessera run takes its role from mpirun or srun, and neither started it; use `tessera train` "
              "on one machine");
}

/// Rank 0: prepares the run and keeps the coordinator alive.
int run_coordinator_rank(const TrainOptions& options, const std::string& workers) {
  TrainOptions mine = options;
  mine.recipe.overrides.push_back("workers=" + workers);
  if (mine.resume && RunDirectory(options.out).exists()) {
    if (const Status free = RunDirectory(options.out).await_free(); !free.ok()) return report(free.error());
    std::error_code ignored;
    std::filesystem::remove(RunDirectory(options.out).endpoints(), ignored);  // a former coordinator's
  }
  Result<PreparedRun> prepared = prepare_run(mine);
  if (!prepared.ok()) return report(prepared.error());
  const RunDirectory run(prepared->out);
  const int code = supervise(run, {coordinator_child(run, mine.resume)},
                             {.resume = mine.resume,
                              .quiet = mine.quiet,
                              .unit = prepared->unit,
                              .rounds = prepared->recipe->rounds});
  return finish_run("run", code, *prepared, options);
}

/// Other ranks: keep a worker alive until the coordinator lets it go.
int run_worker_rank(const TrainOptions& options, const Rank& rank) {
  const Result<Recipe> recipe = load_recipe(options.recipe);
  if (!recipe.ok()) return report(recipe.error());
  const RunDirectory run(options.out);
  ChildSpec worker = worker_child(run, recipe->net, rank.rank - 1, worker_capacity(*recipe, rank.size - 1));
  worker.process.output_file.clear();  // the launcher carries its lines to where it keeps those of the rank
  worker.decides = true;
  return supervise(run, {worker},
                   {.resume = false, .quiet = true, .owns_run = false, .unit = {}, .rounds = recipe->rounds});
}

}  // namespace

int command_run(const TrainOptions& given) {
  const Result<Rank> rank = rank_from_launcher();
  if (!rank.ok()) return report(rank.error());
  if (rank->size < 2) {
    return report(fail(ExitCode::usage,
                       "tessera run wants at least 2 ranks (a coordinator and a worker), not ", rank->size));
  }
  TrainOptions options = given;
  if (options.out.empty())
    options.out = "runs/" + std::filesystem::path(given.recipe.file).stem().string() + "-" + rank->job;
  if (rank->restarted && RunDirectory(options.out).exists()) options.resume = true;
  if (rank->rank == 0) return run_coordinator_rank(options, std::to_string(rank->size - 1));
  return run_worker_rank(options, *rank);
}

}  // namespace tessera
