#include "launch/prepare_run.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include "base/text.h"
#include "coordinator/cost.h"
#include "launch/assemble.h"
#include "launch/catalogs.h"
#include "launch/open_device.h"
#include "launch/process.h"
#include "launch/report.h"
#include "launch/run_directory.h"

namespace tessera {
namespace {

std::string default_out(const std::string& recipe_file) {
  char stamp[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", std::localtime(&now));
  return "runs/" + std::filesystem::path(recipe_file).stem().string() + "-" + stamp;
}

PrepareProgress data_progress(bool quiet) {
  if (quiet) return {};
  const bool terminal = isatty(STDERR_FILENO);
  return [terminal, last = std::string()](const std::string& what, double done) mutable {
    if (terminal) {
      std::fprintf(stderr, "\r%-60s %3.0f %%%s", what.c_str(), 100 * done, done >= 1 ? "\n" : "");
    } else if (what != last) {
      std::fprintf(stderr, "%s\n", what.c_str());
    }
    last = what;
  };
}

void print_plan(const Recipe& recipe, const ModelParts& model, const DataParts& data,
                const std::string& out) {
  const CostReport cost =
      cost_of(model.plan, model.specs, model.family->cost(), cost_settings(recipe, model));
  std::printf("%s with %s parameters; %lld slots on %lld workers; method %s, %lld rounds of %lld steps\n",
              recipe.model.family.name.c_str(), format_count(cost.parameters).c_str(),
              static_cast<long long>(recipe.slots), static_cast<long long>(recipe.workers),
              recipe.outer.method.name.c_str(), static_cast<long long>(recipe.rounds),
              static_cast<long long>(recipe.sync.steps));
  std::printf(
      "cut %s, %lld slices: a slot trains %.0f %% of the parameters and saves %.1f %% of the FLOPs "
      "(computed)\n",
      recipe.partial.cut.c_str(), static_cast<long long>(recipe.partial.slices),
      100 * cost.slots[0].trainable_share, 100 * cost.flops_saved());
  std::printf("data: %s training tokens, %s held out, vocabulary %lld\n",
              format_count(static_cast<double>(data.prepared.train_tokens)).c_str(),
              format_count(static_cast<double>(data.prepared.held_out_tokens)).c_str(),
              static_cast<long long>(data.prepared.vocab));
  std::printf("run directory: %s\n", out.c_str());
  std::fflush(stdout);
}

/// Where a schedule has no horizon of its own it ends with the run: a longer run stretches what lies behind,
/// too.
void note_stretched_schedule(const Recipe& before, const Recipe& now) {
  const std::unique_ptr<Schedule> old_one = assemble_schedule(before), new_one = assemble_schedule(now);
  const std::int64_t last = std::max<std::int64_t>(0, before.horizon() - 1);
  const double was = old_one->factor(last), is = new_one->factor(last);
  if (was == is) return;
  std::fprintf(stderr,
               "tessera: rounds %lld -> %lld moves the end of schedule \"%s\": at step %lld, where the run "
               "was to end, "
               "the rate is %.3g of its peak instead of %.3g. schedule.horizon = %lld leaves it as it was.\n",
               static_cast<long long>(before.rounds), static_cast<long long>(now.rounds),
               now.schedule.schedule.name.c_str(), static_cast<long long>(last), is, was,
               static_cast<long long>(before.horizon()));
}

std::string resume_line(const std::string& command, const TrainOptions& options, const std::string& out) {
  std::string line = program_for_typing() + " " + command + " " + options.recipe.file;
  for (const std::string& override_text : options.recipe.overrides) line += " --set '" + override_text + "'";
  return line + " --out " + out + " --resume";
}

}  // namespace

Result<PreparedRun> prepare_run(const TrainOptions& options) {
  TESSERA_ASSIGN(Recipe parsed, load_recipe(options.recipe));
  auto recipe = std::make_shared<const Recipe>(std::move(parsed));
  // The plan does not depend on the vocabulary: mistakes in it are told before the corpus is read.
  TESSERA_TRY([&]() -> Status {
    auto model = assemble_model(*recipe, 256);
    return model.ok() ? Status() : Status(model.error());
  }());
  TESSERA_TRY([&]() -> Status {
    auto device = open_device(recipe->device);
    return device.ok() ? Status() : Status(device.error());
  }());
  const RunDirectory run(options.out.empty() ? default_out(options.recipe.file) : options.out);
  if (options.resume && run.exists()) TESSERA_TRY(run.await_free());
  if (!options.resume && run.exists())
    TESSERA_TRY(run.create(*recipe));  // refuses; nothing is prepared for a run that cannot be
  TESSERA_ASSIGN(const DataParts data, assemble_data(*recipe, {}, data_progress(options.quiet)));
  TESSERA_ASSIGN(const ModelParts model, assemble_model(*recipe, data.prepared.vocab));
  if (options.resume) {
    TESSERA_ASSIGN(const Recipe before, run.resume(*recipe, builtin_catalogs()));
    note_stretched_schedule(before, *recipe);
  } else {
    TESSERA_TRY(run.create(*recipe));
  }
  if (!options.quiet) print_plan(*recipe, model, data, run.path());
  return PreparedRun{recipe, run.path(), data.source->unit()};
}

int finish_run(const std::string& command, int code, const PreparedRun& prepared,
               const TrainOptions& options) {
  if (code == static_cast<int>(ExitCode::resumable)) {
    std::printf("\nStopped in good order. To go on:\n  %s\n",
                resume_line(command, options, prepared.out).c_str());
  } else if (code != 0) {
    std::fprintf(stderr,
                 "tessera: the run ended with exit code %d; what its processes said lies in %s/text\n", code,
                 prepared.out.c_str());
  } else if (!options.quiet) {
    if (const Status reported = print_report(RunDirectory(prepared.out), prepared.recipe); !reported.ok()) {
      report(reported.error());  // the run itself is done and stays done
    }
  }
  return code;
}

}  // namespace tessera
