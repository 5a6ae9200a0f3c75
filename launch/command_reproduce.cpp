// tessera reproduce: runs the arms of an experiment that lies in recipes/NAME and says what came of it.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "comm/storage/directory_lock.h"
#include "data/tokenizer.h"
#include "launch/assemble.h"
#include "launch/catalogs.h"
#include "launch/commands.h"
#include "launch/config/parse.h"
#include "launch/machine.h"
#include "launch/process.h"
#include "launch/reproduce/campaign.h"
#include "launch/reproduce/child_runner.h"
#include "launch/reproduce/claims.h"
#include "launch/reproduce/report.h"
#include "launch/signals.h"
#include "launch/simulate/recipe_workload.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// The source tree: where one stands, or where this binary was built.
std::string find_root(const std::string& paper) {
  return fs::exists("recipes/" + paper + "/arms.toml") ? fs::current_path().string() : TESSERA_SOURCE_TREE;
}

Status known_paper(const std::string& root, const std::string& paper) {
  if (fs::exists(root + "/recipes/" + paper + "/arms.toml")) return {};
  std::vector<std::string> known;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(root + "/recipes", missing)) {
    if (fs::exists(entry.path() / "arms.toml")) known.push_back(entry.path().filename().string());
  }
  return fail(ExitCode::usage, "there is no experiment ", paper, " under ", root, "/recipes; there is ",
              known.empty() ? "none" : join(known, ", "));
}

std::int64_t vocab_of(const Recipe& recipe) {
  if (recipe.model.vocab > 0) return recipe.model.vocab;
  const Choice& tokenizer = recipe.data.tokenizer;
  return Registry<Tokenizer>::builtin().make(tokenizer.name, *tokenizer.settings, {})->vocab();
}

/// Steps of a slot after its last contribution of `steps` in all: a method that merges with a delay ends with
/// some.
std::int64_t tail_steps(const OuterMethod& method, std::int64_t steps) {
  std::int64_t tail = 0;
  while (tail < steps && method.due(steps - 1 - tail).push.empty()) ++tail;
  return tail;
}

Result<ResolvedUnit> resolve_unit(const ExperimentSpec& spec, const std::vector<std::string>& overrides) {
  TESSERA_ASSIGN(const Recipe recipe,
                 parse_recipe(spec.base_text, spec.base_file, overrides, builtin_catalogs()));
  const std::int64_t vocab = vocab_of(recipe);
  if (vocab == 0)
    return fail(ExitCode::usage, spec.base_file, ": say model.vocab, or nothing can be planned");
  TESSERA_ASSIGN(const ModelParts model, assemble_model(recipe, vocab));
  const CostSettings settings = cost_settings(recipe, model);
  const std::shared_ptr<const OuterMethod> method = assemble_method(recipe, model);
  return ResolvedUnit{
      .recipe = comparable_settings(recipe),
      .cost = cost_of(model.plan, model.specs, model.family->cost(), settings),
      .cost_settings = settings,
      .workload = workload_of(model.plan, model.specs, model.family->cost(), *method, settings,
                              static_cast<double>(recipe.slots)),
      .rounds = recipe.rounds,
      .slots = recipe.slots,
      .eval_every = recipe.eval.every,
      .tail_steps = tail_steps(*method, recipe.rounds * recipe.sync.steps),
      .share = method->arrivals_per_merge() == 0
                   ? 1.0
                   : static_cast<double>(method->arrivals_per_merge()) / static_cast<double>(recipe.slots)};
}

/// The first line that a command prints; "" when it fails.
std::string first_line(const std::string& command) {
  std::string line;
  if (FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r")) {
    char text[256] = "";
    if (std::fgets(text, sizeof text, pipe) != nullptr) line = text;
    pclose(pipe);
  }
  while (!line.empty() && line.back() == '\n') line.pop_back();
  return line;
}

std::string describe_machine() {
  std::ifstream cpus("/proc/cpuinfo");
  std::string model = "unknown processor";
  for (std::string line; std::getline(cpus, line);) {
    if (line.starts_with("model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  return model + ", " + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + " cores";
}

void print_list(const Campaign& campaign, const std::vector<UnitStatus>& units, int jobs) {
  std::printf("%-58s %-8s %9s  %s\n", "unit", "state", "minutes", "");
  double left = 0, typical = 0;
  int done = 0;
  for (const UnitStatus& status : units) {
    const char* words[] = {"done", "stale", "ready", "waiting", "failed"};
    double seconds = status.resolved ? campaign.estimate(*status.resolved) : typical;
    if (status.resolved && !status.unit.tuning()) typical = seconds;
    if (status.state == UnitState::done) seconds = status.result->wall_seconds, ++done;
    if (campaign.wanted(status)) left += seconds;
    std::printf("%-58s %-8s %9.1f  %s\n", status.unit.name.c_str(), words[static_cast<int>(status.state)],
                seconds / 60, status.why.c_str());
  }
  std::printf("%d of %zu units are done; what is missing takes about %s, %d side by side\n", done,
              units.size(), format_duration(left / jobs).c_str(), jobs);
}

struct Places {
  std::string results, report, pictures, work;
};

Places places_of(const ReproduceOptions& options, const std::string& root) {
  Places places;
  places.work = "runs/reproduce/" + options.paper + (options.quick ? "-quick" : "");
  if (options.quick) {
    places.results = places.work + "/results";
    places.report = places.work + "/report.md";
    places.pictures = places.work + "/pictures";
  } else {
    places.results = root + "/recipes/" + options.paper + "/results";
    places.report = root + "/docs/results/" + options.paper + ".md";
    places.pictures = root + "/docs/results/" + options.paper;
  }
  if (!options.results.empty()) {
    places.work = places.results = options.results;
    places.report = options.results + "/report.md";
    places.pictures = options.results + "/pictures";
  }
  places.work = fs::absolute(places.work).string();
  return places;
}

/// The program as it is now, kept for the units: who builds anew while they run must not mix two builds.
Result<std::string> keep_program(const std::string& folder) {
  const std::string kept = folder + "/tessera-" + build_id(), half = kept + ".tmp";
  std::error_code failed;
  if (fs::exists(kept, failed)) return fs::absolute(kept).string();
  fs::copy_file(own_program(), half, fs::copy_options::overwrite_existing, failed);
  if (!failed) fs::rename(half, kept, failed);
  if (failed)
    return fail(ExitCode::storage, "cannot copy ", own_program(), " to ", kept, ": ", failed.message());
  return fs::absolute(kept).string();
}

Result<CampaignEnd> run_campaign(Campaign& campaign, const ExperimentSpec& spec, const ProfileSpec& profile,
                                 const std::string& root, const Places& places) {
  const Result<DirectoryLock> lock = DirectoryLock::take(places.work);
  if (!lock.ok()) {
    if (lock.error().code != ExitCode::fenced) return lock.error();
    return fail(ExitCode::failed,
                "another tessera reproduce is at work on this experiment: ", lock.error().message,
                "; --list and --report do not mind");
  }
  TESSERA_ASSIGN(const std::string program, keep_program(places.work));
  const std::string commit = first_line("git -C '" + root + "' describe --always --dirty");
  ChildRunner runner(spec, profile,
                     {.program = program,
                      .root = root,
                      .work = places.work + "/runs",
                      .commit = commit.empty() ? "unknown" : commit,
                      .build = build_id(),
                      .machine = describe_machine()});
  const StopSignals signals;
  return campaign.run(
      runner, [&] { return signals.received() > 0; },
      [](const std::string& line) {
        std::printf("%s\n", line.c_str());
        std::fflush(stdout);
      });
}

Result<int> reproduce(const ReproduceOptions& options) {
  const std::string root = find_root(options.paper), folder = root + "/recipes/" + options.paper;
  TESSERA_TRY(known_paper(root, options.paper));
  TESSERA_ASSIGN(const ExperimentSpec spec, load_experiment(folder));
  TESSERA_ASSIGN(const std::vector<Claim> claims, load_claims(folder + "/claims.toml", spec));
  const std::string profile_name = options.quick ? "quick" : "full";
  const auto found = spec.profiles.find(profile_name);
  if (found == spec.profiles.end())
    return fail(ExitCode::usage, folder, "/arms.toml has no [profiles.", profile_name, "]");
  const ProfileSpec& profile = found->second;
  const Places places = places_of(options, root);
  const int jobs = options.jobs > 0 ? options.jobs : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  Campaign campaign(
      spec, profile, [&](const std::vector<std::string>& overrides) { return resolve_unit(spec, overrides); },
      {.results = places.results, .only = options.only, .jobs = jobs, .redo_stale = options.redo_stale});
  if (options.list) {
    print_list(campaign, campaign.look(), jobs);
    return 0;
  }
  CampaignEnd end;
  if (!options.report) {
    std::printf("%s (%s)\n", spec.title.c_str(), spec.paper.c_str());
    std::printf("profile %s, %zu units, %d side by side; results go to %s\n", profile_name.c_str(),
                campaign.look().size(), jobs, places.results.c_str());
    std::fflush(stdout);
    TESSERA_ASSIGN(end, run_campaign(campaign, spec, profile, root, places));
  }
  TESSERA_TRY(write_report({spec, profile, claims, campaign.look(), campaign.tuned()}, places.report,
                           places.pictures));
  std::printf("\n%d units run, %d failed\n  results   %s\n  report    %s\n  pictures  %s\n", end.ran,
              end.failed, places.results.c_str(), places.report.c_str(), places.pictures.c_str());
  if (!end.interrupted) return end.failed > 0 ? static_cast<int>(ExitCode::failed) : 0;
  std::printf("\nStopped; finished units are kept. The same command goes on with the others.\n");
  return static_cast<int>(ExitCode::resumable);
}

}  // namespace

int command_reproduce(const ReproduceOptions& options) {
  const Result<int> code = reproduce(options);
  return code.ok() ? *code : report(code.error());
}

}  // namespace tessera
