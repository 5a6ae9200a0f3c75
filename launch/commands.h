// The commands of `tessera`, one function each, in launch/command_NAME.cpp. They return the exit code of the
// process (base/error.h) and print what went wrong. launch/cli.cpp turns the command line into these options.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "launch/config/recipe.h"

namespace tessera {

/// A recipe file and what the command line says over it, as "a.b=c" (--slots, --workers, --rounds and --seed
/// are such too).
struct RecipeOptions {
  std::string file;
  std::vector<std::string> overrides;
};
/// Parses with the built-in plug-ins.
Result<Recipe> load_recipe(const RecipeOptions& options);

/// Prints "tessera: " and the error's lines on stderr; gives its exit code.
int report(const Error& error);

/// train, debug, run
struct TrainOptions {
  RecipeOptions recipe;
  std::string out;      ///< run directory; empty: runs/RECIPE-TIME
  bool resume = false;  ///< go on with the run that lies in `out`
  bool quiet = false;   ///< no line per round
};
int command_train(const TrainOptions& options);
int command_debug(const TrainOptions& options);
int command_run(const TrainOptions& options);

struct CoordinatorOptions {
  TrainOptions train;  ///< --listen and --port arrive as overrides of net.listen and net.port
  std::string job;     ///< set by `train`: hex id of the job; empty: drawn
};
int command_coordinator(const CoordinatorOptions& options);

struct WorkerOptions {
  std::string connect;        ///< host:port of the coordinator, or the path of its endpoints.json
  std::string data;           ///< this machine's copy of the data; empty: data.path of the recipe
  std::string folder;         ///< where slot states are kept; empty: a temporary folder
  std::int64_t capacity = 1;  ///< slots that it is willing to hold
  double link_mbits = 0;      ///< imitates a slow link, Mbit/s each way; 0: as fast as the real one
  double link_latency = 0;    ///< likewise, ms one way
  bool quiet = false;
};
int command_worker(const WorkerOptions& options);

struct PlanOptions {
  RecipeOptions recipe;
  bool json = false;
  double gflops = 0;  ///< what one worker computes, for a prediction of time; 0: none is made
  double mbits = 0;   ///< its link, in each direction; 0: unlimited
};
int command_plan(const PlanOptions& options);

/// Lists are as launch/simulate/axis.h understands them.
struct SimulateOptions {
  RecipeOptions recipe;  ///< none: `sizes` are simulated
  std::string table;     ///< a published table that is reproduced: "streaming-diloco"
  std::string sizes = "1B";
  std::string methods;  ///< empty: data_parallel,diloco,streaming, or recipe,diloco,data_parallel
  std::string codecs;   ///< empty: bf16, or the recipe's own
  std::string bandwidth = "1M..1T", latency = "0", workers, speeds = "1";
  std::string server_bandwidth = "0";
  std::string topology;  ///< empty: server for a recipe, ring for sizes
  std::string
      overlap;        ///< of communication and backward pass, "on" | "off"; empty: off for a recipe, else on
  int points = 25;    ///< of a range a..b
  double gflops = 0;  ///< what one worker computes, for a recipe; 0: 50, said aloud
  std::int64_t steps = 100, layers_per_fragment = 3, tau = 1;  ///< H and streaming, for sizes
  double trained = 0.5;                                        ///< partial: share that a worker trains
  std::int64_t total_steps = 0;  ///< of the run; 0: the recipe's, unknown for sizes
  double merge_seconds = 0;
  bool half_duplex = false;
  std::string csv, svg;  ///< files to write
  bool json = false;
};
int command_simulate(const SimulateOptions& options);

struct ReproduceOptions {
  std::string paper;        ///< folder under recipes/
  bool quick = false;       ///< the small profile, in a place of its own
  bool full = false;        ///< all of it: the default, said aloud
  bool list = false;        ///< only show the units
  bool report = false;      ///< only write the report from what is there
  bool redo_stale = false;  ///< run units anew whose result is of another recipe
  std::string only = "*";   ///< glob on the names of units
  std::string results;      ///< folder of the results; empty: the profile's own
  std::int64_t jobs = 0;    ///< units side by side; 0: as many as cores
};
int command_reproduce(const ReproduceOptions& options);

/// eval and generate: a run directory, its newest checkpoint or the one of a round.
struct TrainedOptions {
  std::string run;
  std::optional<std::int64_t> round;
  std::vector<std::string> overrides;  ///< over the run's own recipe
  std::string data;                    ///< eval: other data than the recipe's
  bool json = false;
};
int command_eval(const TrainedOptions& options);
int command_generate(const TrainedOptions& options);

struct InspectOptions {
  std::string path;  ///< a run directory, a checkpoint folder or a safetensors file
  std::optional<std::int64_t> round;
  bool json = false;
};
int command_inspect(const InspectOptions& options);

struct DiffOptions {
  std::string a, b;  ///< run directories, checkpoint folders or safetensors files
};
int command_diff(const DiffOptions& options);

struct DescribeOptions {
  std::string what, name;
  bool markdown = false;  ///< docs/config.md
  bool create = false;    ///< --new: write a plug-in file and its test
  std::string source;     ///< the source tree for --new; empty: the one this binary was built from
};
int command_describe(const DescribeOptions& options);

}  // namespace tessera
