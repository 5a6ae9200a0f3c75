#include "launch/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>

#include "base/text.h"
#include "launch/assemble.h"
#include "launch/catalogs.h"
#include "launch/commands.h"
#include "launch/config/parse.h"

namespace tessera {

Result<Recipe> load_recipe(const RecipeOptions& options) {
  return load_recipe(options.file, options.overrides, builtin_catalogs());
}

int report(const Error& error) {
  const std::vector<std::string> lines = split(error.message, '\n');
  for (const std::string& line : lines) std::fprintf(stderr, "tessera: %s\n", line.c_str());
  return static_cast<int>(error.code);
}

namespace {

constexpr const char* planning = "Before a run";
constexpr const char* training = "Running";
constexpr const char* using_it = "After a run";

constexpr const char* examples =
    "Examples\n"
    "  tessera plan recipes/quickstart.toml                  what it will cost\n"
    "  tessera train recipes/quickstart.toml --out runs/a    coordinator and workers on this machine\n"
    "  tessera train recipes/quickstart.toml --out runs/a --resume\n"
    "  mpirun -n 5 tessera run recipes/quickstart.toml       the same, started by MPI or Slurm\n"
    "  tessera generate runs/a --prompt \"It is a truth\"\n"
    "  tessera describe inner.lr                             what a setting means\n"
    "\n"
    "tessera COMMAND --help shows the options of a command. Settings: docs/config.md.\n";

/// The recipe and --set.
CLI::Option* add_recipe_file(CLI::App& command, RecipeOptions& recipe) {
  CLI::Option* file =
      command.add_option("recipe", recipe.file, "Recipe (TOML)")->required()->type_name("FILE");
  command
      .add_option_function<std::vector<std::string>>(
          "--set",
          [&recipe](const std::vector<std::string>& all) {
            recipe.overrides.insert(recipe.overrides.end(), all.begin(), all.end());
          },
          "Set one setting, --set sync.steps=20; repeatable, wins over the file")
      ->type_name("A.B=C")
      ->allow_extra_args(false);
  return file;
}

/// Options shared by the commands that take a recipe.
void add_recipe(CLI::App& command, RecipeOptions& recipe) {
  add_recipe_file(command, recipe);
  auto over = [&recipe](const std::string& prefix) {
    return [&recipe, prefix](const std::string& value) { recipe.overrides.push_back(prefix + value); };
  };
  command
      .add_option_function<std::string>("--slots", over("slots="), "Seats of the training (--set slots=K)")
      ->type_name("K");
  command
      .add_option_function<std::string>("--workers", over("workers="),
                                        "Processes that hold the slots (--set workers=N)")
      ->type_name("N");
  command.add_option_function<std::string>("--rounds", over("rounds="), "Merges to make (--set rounds=R)")
      ->type_name("R");
  command.add_option_function<std::string>("--seed", over("seed="), "Seed of the run (--set seed=S)")
      ->type_name("S");
}

void add_simulate_options(CLI::App& command, SimulateOptions& o) {
  add_recipe_file(command, o.recipe)->required(false);
  command.add_option("--workers", o.workers, "How many: 4,100 or 2..10000; default: the recipe's, 2 without")
      ->type_name("LIST");
  command.add_option("--table", o.table, "Reproduce a published table, cell by cell")
      ->check(CLI::IsMember({"streaming-diloco"}))
      ->type_name("NAME");
  command
      .add_option("--model", o.sizes, "Without a recipe: 1B,10B,100B or PARAMETERS:LAYERS:SECONDS_PER_STEP")
      ->type_name("LIST");
  command
      .add_option("--method", o.methods,
                  "data_parallel,diloco,streaming,eager,partial; with a recipe also: recipe")
      ->type_name("LIST");
  command
      .add_option("--codec", o.codecs, "Bits of a parameter on the wire: fp32,bf16,fp4, or up/down: fp4/bf16")
      ->type_name("LIST");
  command.add_option("--bandwidth", o.bandwidth, "A worker's link, bit/s each way; default 1M..1T")
      ->type_name("LIST");
  command.add_option("--latency", o.latency, "One way: 0,10ms,100ms")->type_name("LIST");
  command.add_option("--speeds", o.speeds, "Unequal workers: 1,0.5 (half of them half as fast)")
      ->type_name("LIST");
  command.add_option("--points", o.points, "Values in a range a..b; default 25")->check(CLI::Range(2, 1000));
  command.add_option("--topology", o.topology, "server (default for a recipe) or ring")
      ->check(CLI::IsMember({"server", "ring"}));
  command.add_option("--server-bandwidth", o.server_bandwidth,
                     "The coordinator's link, bit/s each way, shared by all; default 0: unlimited");
  command.add_flag("--half-duplex", o.half_duplex, "A worker does not send while it receives");
  command
      .add_option("--overlap", o.overlap,
                  "Layers leave while the backward pass goes on: on (default for --model) or off")
      ->check(CLI::IsMember({"on", "off"}));
  command.add_option("--gflops", o.gflops, "With a recipe: what one worker computes, GFLOP/s; default 50")
      ->check(CLI::PositiveNumber);
  command.add_option("--steps", o.steps, "Without a recipe: H, inner steps per merge; default 100")
      ->check(CLI::PositiveNumber);
  command.add_option("--layers-per-fragment", o.layers_per_fragment, "streaming; default 3")
      ->check(CLI::PositiveNumber);
  command.add_option("--tau", o.tau, "streaming: steps of overlap; default 1")->check(CLI::NonNegativeNumber);
  command.add_option("--trained", o.trained, "partial: share of the model that a worker trains; default 0.5")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--total-steps", o.total_steps, "Inner steps of the run, for its time")
      ->check(CLI::PositiveNumber);
  command.add_option("--merge-seconds", o.merge_seconds, "The coordinator's work on one merge")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--csv", o.csv, "Write the rows")->type_name("FILE");
  command.add_option("--svg", o.svg, "Write a picture: utilisation over bandwidth")->type_name("FILE");
  command.add_flag("--json", o.json, "For programs");
}

void add_run_options(CLI::App& command, TrainOptions& options) {
  add_recipe(command, options.recipe);
  command.add_option("--out", options.out, "Run directory; default: runs/RECIPE-TIME")->type_name("DIR");
  command.add_flag("--resume", options.resume, "Go on with the run in --out");
  command.add_flag("--quiet", options.quiet, "No line per round");
}

/// The commands, their options, and which of them was called.
class CommandLine {
 public:
  CommandLine() : app_("Tessera trains one model on many loosely connected machines.", "tessera") {
    app_.require_subcommand(1);
    add_training();
    add_roles();
    add_plan_and_describe();
    add_trained();
    add_reproduce();
  }

  int run(int argc, char** argv) {
    const std::string first = argc > 1 ? argv[1] : "--help";
    if (first == "--help" || first == "-h" || first == "help") return print_overview();
    if (first == "--version") {
      std::printf("tessera %s (build %s)\n", TESSERA_VERSION, build_id().c_str());
      return 0;
    }
    const std::vector<std::string> known = names();
    if (!first.starts_with("-") && std::count(known.begin(), known.end(), first) == 0) {
      const std::string near = nearest_name(first, known);
      return report(fail(ExitCode::usage, "there is no command ", first,
                         near.empty() ? "" : "; did you mean " + near + "?", " (tessera --help lists them)"));
    }
    try {
      app_.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
      if (first.starts_with("-"))
        return report(fail(ExitCode::usage, "a command comes first (tessera --help lists them)"));
      std::fputs(app_.get_subcommand(first)->help("tessera").c_str(), stdout);
      return 0;
    } catch (const CLI::ParseError& error) {
      return report(fail(ExitCode::usage, error.what(), " (tessera ", first, " --help shows its options)"));
    }
    return chosen_();
  }

 private:
  /// A command whose options live as long as this object.
  template <class Options>
  std::pair<CLI::App*, Options*> add(const char* group, const char* name, const char* help,
                                     int (*function)(const Options&)) {
    auto options = std::make_shared<Options>();
    CLI::App* command = app_.add_subcommand(name, help)->group(group);
    command->callback(
        [this, options, function] { chosen_ = [options, function] { return function(*options); }; });
    return {command, options.get()};
  }

  void add_training() {
    for (auto [name, help, function] :
         {std::tuple{"train", "Coordinator and workers on this machine, watched and restarted",
                     &command_train},
          std::tuple{"debug", "The whole cluster in one process and one thread, for a debugger",
                     &command_debug},
          std::tuple{"run", "Under mpirun or srun: rank 0 coordinates, the others work", &command_run}}) {
      auto [command, options] = add(training, name, help, function);
      add_run_options(*command, *options);
    }
  }

  void add_roles() {
    auto [coordinator, c] =
        add(training, "coordinator", "The coordinator alone; workers join and leave", &command_coordinator);
    add_run_options(*coordinator, c->train);
    auto over = [overrides = &c->train.recipe.overrides](const std::string& prefix) {
      return [overrides, prefix](const std::string& value) { overrides->push_back(prefix + value); };
    };
    coordinator
        ->add_option_function<std::string>("--listen", over("net.listen="),
                                           "Address to listen on (--set net.listen=A)")
        ->type_name("ADDRESS");
    coordinator
        ->add_option_function<std::string>("--port", over("net.port="), "Control port (--set net.port=P)")
        ->type_name("P");
    coordinator->add_option("--job", c->job, "Id of the job, set by tessera train")->group("");

    auto [worker, w] =
        add(training, "worker", "One worker; the recipe comes from the coordinator", &command_worker);
    worker->add_option("--connect", w->connect, "The coordinator: host:port, or its endpoints.json")
        ->required()
        ->type_name("ADDRESS");
    worker->add_option("--data", w->data, "This machine's copy of the data (its hash is checked)")
        ->type_name("DIR");
    worker->add_option("--dir", w->folder, "Where slot states are kept; default: a temporary folder")
        ->type_name("DIR");
    worker->add_option("--capacity", w->capacity, "Slots that it may hold at a time")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    worker->add_option("--link-mbits", w->link_mbits, "Imitate a slow link, Mbit/s each way (net.bandwidth)")
        ->check(CLI::NonNegativeNumber);
    worker->add_option("--link-latency", w->link_latency, "Likewise, ms one way (net.latency)")
        ->check(CLI::NonNegativeNumber);
    worker->add_flag("--quiet", w->quiet, "Only warnings");
  }

  void add_plan_and_describe() {
    auto [plan, p] =
        add(planning, "plan", "Partition, FLOPs, memory and bytes of a recipe, computed; needs no corpus",
            &command_plan);
    add_recipe(*plan, p->recipe);
    plan->add_flag("--json", p->json, "For programs");
    plan->add_option("--gflops", p->gflops, "Predict time: what one worker computes, GFLOP/s")
        ->check(CLI::PositiveNumber);
    plan->add_option("--mbits", p->mbits, "Predict time: a worker's link, Mbit/s each way")
        ->check(CLI::PositiveNumber);

    auto [simulate, s] =
        add(planning, "simulate",
            "Compute utilisation and time over bandwidth, latency, workers, size, method, codec",
            &command_simulate);
    add_simulate_options(*simulate, *s);

    auto [describe, d] =
        add(planning, "describe", "What can be set and chosen, and what it means", &command_describe);
    describe->add_option("what", d->what, "A table, a setting (sync.steps) or a kind (optimizer)")
        ->type_name("WHAT");
    describe->add_option("name", d->name, "One of that kind (adamw)")->type_name("NAME");
    describe->add_flag("--new", d->create,
                       "Write a new plug-in and its test into the source tree: --new optimizer NAME");
    describe->add_flag("--markdown", d->markdown, "All settings as markdown (docs/config.md)");
    describe
        ->add_option("--source", d->source,
                     "Source tree for --new; default: where this binary was built from")
        ->type_name("DIR");
  }

  void add_trained() {
    auto [eval, e] =
        add(using_it, "eval", "Held-out loss, perplexity and bits per byte of a run", &command_eval);
    add_trained_options(*eval, *e);
    eval->add_option("--data", e->data, "Other data than the recipe's")->type_name("DIR");
    eval->add_flag("--json", e->json, "For programs");

    auto [generate, g] = add(using_it, "generate", "Text from a trained model", &command_generate);
    add_trained_options(*generate, *g);
    for (const auto& [flag, setting, help] :
         {std::tuple{"--prompt", "generate.prompt=", "Text to go on from"},
          std::tuple{"--tokens", "generate.tokens=", "How many"},
          std::tuple{"--temperature", "generate.temperature=", "0: always the likeliest token"},
          std::tuple{"--seed", "generate.seed=", "Another seed, another text"}}) {
      const std::string prefix = setting;
      generate->add_option_function<std::string>(
          flag, [g = g, prefix](const std::string& value) { g->overrides.push_back(prefix + value); }, help);
    }

    auto [inspect, i] = add(using_it, "inspect", "What lies in a run or checkpoint; verifies every checksum",
                            &command_inspect);
    inspect->add_option("path", i->path, "Run directory, checkpoint folder or .safetensors file")
        ->required()
        ->type_name("PATH");
    inspect->add_option("--round", i->round, "The checkpoint of this round; default: the newest")
        ->type_name("R");
    inspect->add_flag("--json", i->json, "For programs");

    auto [diff, f] = add(using_it, "diff", "First difference of two runs or checkpoints", &command_diff);
    diff->add_option("a", f->a, "Run directory, checkpoint folder or .safetensors file")
        ->required()
        ->type_name("A");
    diff->add_option("b", f->b, "The other one")->required()->type_name("B");
  }

  void add_reproduce() {
    auto [reproduce, r] =
        add(using_it, "reproduce",
            "A paper's claims at small scale: runs the arms, writes table, plots and verdicts",
            &command_reproduce);
    reproduce->add_option("paper", r->paper, "A folder of recipes/ (partial-updates)")
        ->required()
        ->type_name("PAPER");
    CLI::Option* quick =
        reproduce->add_flag("--quick", r->quick, "Small and fast, in minutes: shows that it works");
    reproduce->add_flag("--full", r->full, "All of it, in hours; skips what is there (the default)")
        ->excludes(quick);
    reproduce->add_flag("--list", r->list, "Only show the units, what is done and how long the rest takes");
    reproduce->add_flag("--report", r->report, "Only write the report, from the results that are there");
    reproduce->add_option("--only", r->only, "Only units whose name matches")->type_name("GLOB");
    reproduce->add_option("--jobs", r->jobs, "Units side by side, a core each; default: number of cores")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    reproduce->add_option("--results", r->results, "Another folder for results and report")->type_name("DIR");
    reproduce->add_flag("--redo-stale", r->redo_stale, "Run units anew whose result is of another recipe");
  }

  static void add_trained_options(CLI::App& command, TrainedOptions& options) {
    command.add_option("run", options.run, "Run directory")->required()->type_name("RUN");
    command.add_option("--round", options.round, "The checkpoint of this round; default: the newest")
        ->type_name("R");
    command.add_option("--set", options.overrides, "Set one setting over the run's recipe; repeatable")
        ->type_name("A.B=C")
        ->allow_extra_args(false);
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const CLI::App* command : app_.get_subcommands({})) names.push_back(command->get_name());
    return names;
  }

  int print_overview() const {
    std::printf(
        "Tessera trains one model on many loosely connected machines: each worker runs the whole model\n"
        "forward but trains only its own slices, and a coordinator merges them every H steps.\n\n"
        "Usage: tessera COMMAND ...\n");
    for (const char* group : {planning, training, using_it}) {
      std::printf("\n%s\n", group);
      for (const CLI::App* command : app_.get_subcommands({})) {
        if (command->get_group() != group) continue;
        std::printf("  %-12s %s\n", command->get_name().c_str(), command->get_description().c_str());
      }
    }
    std::printf("\n%s", examples);
    return 0;
  }

  CLI::App app_;
  std::function<int()> chosen_;
};

}  // namespace

int run_cli(int argc, char** argv) {
  return CommandLine().run(argc, argv);
}

}  // namespace tessera
