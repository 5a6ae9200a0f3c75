// `tessera simulate`: compute utilisation and time before there is a cluster. The model of time is in
// launch/simulate; here options become subjects and axes, and rows become text.
#include <cctype>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "comm/codec.h"
#include "data/tokenizer.h"
#include "launch/assemble.h"
#include "launch/commands.h"
#include "launch/simulate/axis.h"
#include "launch/simulate/paper_table.h"
#include "launch/simulate/recipe_workload.h"
#include "launch/simulate/sweep.h"

namespace tessera {
namespace {

constexpr std::int64_t assumed_vocab = 2048;  // as `plan`, where only the tokenizer will know
constexpr double assumed_gflops = 50;

struct WireBytes {
  std::string name;
  double up = 2, down = 2;  ///< per parameter
};

/// A registered codec by its name, else the number in it is bits: bf16, int8, fp4, 3bit.
Result<double> bytes_of_codec(const std::string& name) {
  const std::vector<std::string> names = Registry<Codec>::builtin().names();
  if (std::find(names.begin(), names.end(), name) != names.end()) {
    const auto settings = Registry<Codec>::builtin().make_settings(name);
    const std::size_t many = 1 << 20;
    return static_cast<double>(Registry<Codec>::builtin().make(name, *settings, {})->encoded_bytes(many)) /
           many;
  }
  std::string digits;
  for (const char c : name) {
    if (std::isdigit(static_cast<unsigned char>(c)) != 0 || c == '.') digits += c;
  }
  const Result<double> bits = parse_quantity(digits);
  if (!bits || *bits <= 0 || *bits > 64)
    return fail(ExitCode::usage, "--codec: ", name, " is none of ", join(names, ", "),
                " and names no number of bits (bf16, int8, fp4)");
  return *bits / 8;
}

Result<WireBytes> parse_codec(const std::string& text) {
  const std::vector<std::string> parts = split(text, '/');
  WireBytes bytes{.name = text};
  TESSERA_ASSIGN(bytes.up, bytes_of_codec(parts.front()));
  TESSERA_ASSIGN(bytes.down, bytes_of_codec(parts.back()));
  return bytes;
}

Result<std::vector<WireBytes>> parse_codecs(const std::string& text) {
  std::vector<WireBytes> all;
  for (const std::string& part : split(text, ',')) {
    TESSERA_ASSIGN(WireBytes bytes, parse_codec(part));
    all.push_back(std::move(bytes));
  }
  return all;
}

Result<std::vector<std::string>> parse_methods(const std::string& text, bool with_recipe) {
  std::vector<std::string> known = shape_methods();
  if (with_recipe) known.push_back("recipe");
  const std::vector<std::string> methods = split(text, ',');
  for (const std::string& method : methods) {
    if (std::find(known.begin(), known.end(), method) != known.end()) continue;
    const std::string near = nearest_name(method, known);
    return fail(ExitCode::usage, "--method: there is no ", method,
                near.empty() ? "" : "; did you mean " + near + "?", " (", join(known, ", "), ")");
  }
  return methods;
}

MethodShape shape_of(const SimulateOptions& o, const std::string& method, const WireBytes& bytes) {
  return {.method = method,
          .steps = o.steps,
          .layers_per_fragment = static_cast<std::int32_t>(o.layers_per_fragment),
          .overlap = o.tau,
          .trained = o.trained,
          .bytes_up = bytes.up,
          .bytes_down = bytes.down};
}

/// Every combination of size, method and codec.
Result<std::vector<Subject>> subjects_of_sizes(const SimulateOptions& o) {
  TESSERA_ASSIGN(const std::vector<std::string> methods,
                 parse_methods(o.methods.empty() ? "data_parallel,diloco,streaming" : o.methods, false));
  TESSERA_ASSIGN(const std::vector<WireBytes> codecs, parse_codecs(o.codecs.empty() ? "bf16" : o.codecs));
  std::vector<Subject> subjects;
  for (const std::string& text : split(o.sizes, ',')) {
    TESSERA_ASSIGN(const ModelSize size, parse_model_size(text));
    for (const std::string& method : methods) {
      for (const WireBytes& bytes : codecs) {
        MethodShape shape = shape_of(o, method, bytes);
        shape.by_layer = o.overlap != "off";
        subjects.push_back({size.name, method, bytes.name,
                            with_workers(workload_of(layers_of(size), shape), 2), 1,
                            static_cast<double>(o.total_steps)});
      }
    }
  }
  return subjects;
}

std::int64_t vocab_of(const Recipe& recipe) {
  if (recipe.model.vocab > 0) return recipe.model.vocab;
  const Choice& tokenizer = recipe.data.tokenizer;
  const std::int64_t known =
      Registry<Tokenizer>::builtin().make(tokenizer.name, *tokenizer.settings, {})->vocab();
  return known > 0 ? known : assumed_vocab;
}

/// The recipe as it is, and other methods with its model, H and codec, without its cut.
Result<std::vector<Subject>> subjects_of_recipe(const SimulateOptions& o) {
  TESSERA_ASSIGN(const Recipe recipe, load_recipe(o.recipe));
  TESSERA_ASSIGN(const std::vector<std::string> methods,
                 parse_methods(o.methods.empty() ? "recipe,diloco,data_parallel" : o.methods, true));
  TESSERA_ASSIGN(const ModelParts model, assemble_model(recipe, vocab_of(recipe)));
  const CostModel cost = model.family->cost();
  const CostSettings own = cost_settings(recipe, model);
  std::vector<WireBytes> codecs = {{"", own.bytes_up, own.bytes_down}};
  if (!o.codecs.empty()) {
    TESSERA_ASSIGN(codecs, parse_codecs(o.codecs));
  }
  const std::shared_ptr<const OuterMethod> method = assemble_method(recipe, model);
  const double slots = static_cast<double>(recipe.slots);
  double parameters = 0;
  for (const ParamSpec& spec : model.specs) parameters += static_cast<double>(spec.elements());
  std::vector<Subject> subjects;
  for (const std::string& name : methods) {
    for (const WireBytes& bytes : codecs) {
      Subject subject;
      subject.model = recipe.model.family.name + " " + format_count(parameters);
      subject.codec = bytes.name;
      subject.flops_per_second = 1e9 * (o.gflops > 0 ? o.gflops : assumed_gflops);
      subject.total_steps = static_cast<double>(o.total_steps > 0 ? o.total_steps : recipe.horizon());
      if (name == "recipe") {
        CostSettings settings = own;
        settings.bytes_up = bytes.up;
        settings.bytes_down = bytes.down;
        subject.method = "recipe: " + recipe.outer.method.name;
        if (recipe.partial.cut != "none")
          subject.method += " " + recipe.partial.cut + "/" + std::to_string(recipe.partial.slices);
        subject.work = workload_of(model.plan, model.specs, cost, *method, settings,
                                   static_cast<double>(recipe.workers));
      } else {
        MethodShape shape = shape_of(o, name, bytes);
        shape.steps = recipe.sync.steps;
        subject.method = name;
        subject.work =
            with_workers(workload_of(layers_of(model.specs, cost, own.tokens_per_step), shape), slots);
      }
      subject.work.by_layer = o.overlap == "on";
      subjects.push_back(std::move(subject));
    }
  }
  return subjects;
}

Status write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) return fail(ExitCode::storage, "cannot write ", path);
  return {};
}

void print_json(const std::vector<Subject>& subjects, const std::vector<SweepRow>& rows) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const SweepRow& row : rows) {
    const Subject& subject = subjects[row.subject];
    const Outcome& o = row.outcome;
    json.push_back({{"model", subject.model},
                    {"method", subject.method},
                    {"codec", subject.codec},
                    {"workers", row.workers},
                    {"latency_seconds", row.latency},
                    {"bandwidth_bits", row.bandwidth},
                    {"compute_utilisation", o.compute_utilisation()},
                    {"step_seconds", o.step_seconds()},
                    {"steps_per_period", o.steps},
                    {"bytes_up_per_period", o.bytes_up},
                    {"bytes_down_per_period", o.bytes_down}});
    if (subject.total_steps > 0) json.back()["run_seconds"] = subject.total_steps * o.step_seconds();
  }
  std::printf("%s\n", json.dump(2).c_str());
}

void print_table_json(const std::vector<std::array<PaperCell, 5>>& cells) {
  nlohmann::ordered_json json = {{"bits_per_parameter", PaperConstants{}.bits_per_parameter}};
  for (const char* size : {"1B", "10B", "100B", ""}) {
    const PaperAgreement sum = agreement(cells, size);
    json[*size != '\0' ? size : "all"] = {
        {"cells", sum.cells}, {"same_point", sum.same}, {"same_or_neighbour", sum.near}};
  }
  std::printf("%s\n", json.dump(2).c_str());
}

int simulate_table(const SimulateOptions& o) {
  const std::vector<std::array<PaperCell, 5>> cells = simulate_paper_table();
  if (!o.csv.empty()) {
    const Status written = write_text(o.csv, paper_table_csv(cells));
    if (!written.ok()) return report(written.error());
  }
  if (o.json) {
    print_table_json(cells);
    return 0;
  }
  std::printf(
      "%sOne constant was chosen, on the rows of 1B: %s bits on the wire per parameter of the model's "
      "name.\n",
      paper_table_text(cells).c_str(), format_double(PaperConstants{}.bits_per_parameter).c_str());
  return 0;
}

Result<Axes> parse_axes(const SimulateOptions& o) {
  Axes axes;
  TESSERA_ASSIGN(axes.bandwidths, parse_axis("--bandwidth", o.bandwidth, o.points));
  TESSERA_ASSIGN(axes.latencies, parse_axis("--latency", o.latency, o.points));
  TESSERA_ASSIGN(axes.speeds, parse_axis("--speeds", o.speeds, o.points));
  if (!o.workers.empty()) {
    TESSERA_ASSIGN(axes.workers, parse_axis("--workers", o.workers, o.points));
  }
  for (double& workers : axes.workers) {
    workers = std::floor(workers + 0.5);
    if (workers < 1) return fail(ExitCode::usage, "--workers: at least 1");
  }
  for (const double speed : axes.speeds) {
    if (speed <= 0) return fail(ExitCode::usage, "--speeds: more than 0");
  }
  return axes;
}

}  // namespace

int command_simulate(const SimulateOptions& o) {
  if (!o.table.empty()) return simulate_table(o);
  const bool with_recipe = !o.recipe.file.empty();
  const Result<Axes> axes = parse_axes(o);
  if (!axes.ok()) return report(axes.error());
  const Result<double> server = parse_quantity(o.server_bandwidth);
  if (!server.ok() || *server < 0)
    return report(fail(ExitCode::usage, "--server-bandwidth: ", o.server_bandwidth, " is no rate"));
  const Result<std::vector<Subject>> subjects = with_recipe ? subjects_of_recipe(o) : subjects_of_sizes(o);
  if (!subjects.ok()) return report(subjects.error());

  const std::string topology = !o.topology.empty() ? o.topology : with_recipe ? "server" : "ring";
  const Cluster cluster{.topology = topology == "ring" ? Topology::ring : Topology::server,
                        .server_bits = *server,
                        .full_duplex = !o.half_duplex,
                        .merge_seconds = o.merge_seconds};
  const std::vector<SweepRow> rows = sweep(*subjects, *axes, cluster);
  if (!o.csv.empty()) {
    const Status written = write_text(o.csv, sweep_csv(*subjects, rows));
    if (!written.ok()) return report(written.error());
  }
  if (!o.svg.empty()) {
    const Status written = write_svg(sweep_plot(*subjects, rows, *axes), o.svg);
    if (!written.ok()) return report(written.error());
  }
  if (o.json) {
    print_json(*subjects, rows);
    return 0;
  }
  std::printf("%s", sweep_table(*subjects, rows).c_str());
  if (with_recipe && o.gflops == 0)
    std::printf("Note: %s GFLOP/s per worker are assumed; --gflops says what yours reach.\n",
                format_double(assumed_gflops).c_str());
  for (const std::string& file : {o.csv, o.svg}) {
    if (!file.empty()) std::printf("Wrote %s\n", file.c_str());
  }
  return 0;
}

}  // namespace tessera
