// What combines with what: every pair of choices (method, cut, codecs, views, assignment, rule, ...) either
// trains or is refused with a reason that names it. All methods with all cuts and codecs:
//   TESSERA_COMBINATIONS=all  launch_torch_tests --gtest_filter=Combinations.TheFullMatrix
//   TESSERA_COMBINATIONS=sparta  ...   of one method alone
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/random.h"
#include "comm/codec.h"
#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"
#include "coordinator/cost.h"
#include "launch/assemble.h"
#include "launch/catalogs.h"
#include "launch/config/parse.h"
#include "tests/comm/scratch_folder.h"
#include "tests/launch/torch/command_fixture.h"

namespace tessera {
namespace {

using testing_launch::tessera;

constexpr const char* base_recipe = R"(
slots = 2
workers = 1
rounds = 2
batch = 1
[model]
family = "gpt"
width = 16
layers = 2
heads = 2
context = 8
[sync]
steps = 4
[inner]
lr = 0.003
[eval]
every = 0
[checkpoint]
every = 2
)";

struct Value {
  std::string name;
  std::vector<std::string> settings;
};
struct Factor {
  std::string name;
  std::vector<Value> values;  ///< the first goes with most others
};
using Row = std::vector<std::size_t>;  ///< a value of each factor

/// What a method cannot be without.
std::vector<std::string> needs_of(const std::string& method) {
  static const std::map<std::string, std::vector<std::string>> needs{
      {"async", {"outer.lr=0.5", "outer.cut_lr=0.3"}},
      {"data_parallel", {"sync.steps=1"}},
      {"decoupled", {"outer.lr=0.5", "outer.cut_lr=0.3"}},
      {"eager", {"outer.lr=0.5", "outer.cut_lr=0.3"}},
      {"sparta", {"sync.steps=1", "outer.share=0.25"}},
      {"sparseloco", {"outer.density=0.1", "outer.chunk=64"}},
      {"streaming", {"outer.tau=1"}}};
  const auto found = needs.find(method);
  return found == needs.end() ? std::vector<std::string>{} : found->second;
}

/// All names of a registry, `first` in front.
std::vector<Value> choices(std::vector<std::string> names, const std::string& first,
                           const std::string& setting) {
  std::stable_partition(names.begin(), names.end(), [&](const std::string& name) { return name == first; });
  std::vector<Value> values;
  for (const std::string& name : names) values.push_back({name, {setting + "=" + name}});
  return values;
}

std::vector<Factor> factors() {
  Factor method{"method", choices(Registry<OuterMethod>::builtin().names(), "diloco", "outer.name")};
  for (Value& value : method.values) {
    for (const std::string& setting : needs_of(value.name)) value.settings.push_back(setting);
  }
  const std::vector<std::string> codecs = Registry<Codec>::builtin().names();
  Factor up{"up", choices(codecs, "fp32", "codec.up")}, down{"down", choices(codecs, "fp32", "codec.down")};
  for (auto [factor, way] : {std::pair{&up, "up"}, {&down, "down"}})
    factor->values.push_back(
        {"int2 with feedback",
         {std::string("codec.") + way + "=int2", std::string("codec.") + way + "_feedback=1"}});
  const auto cut = [](const std::string& name) {
    return Value{name, {"partial.cut=" + name, "partial.slices=2"}};
  };
  return {
      method,
      {"cut",
       {cut("mlp"),
        {"none", {}},
        cut("heads"),
        cut("mlp+heads"),
        cut("layer"),
        cut("tensor"),
        cut("blocks.*.mlp.*")}},
      up,
      down,
      {"view", {{"reset", {}}, {"fast", {"partial.owner_view=fast"}}}},
      {"assign",
       {{"modulo", {}},
        {"balanced", {"partial.assign=balanced", "partial.speeds=[1,2]"}},
        {"replicas", {"partial.replicas=2"}},
        {"rotating", {"partial.rotate_every=1"}},
        {"handed over", {"partial.rotate_every=1", "partial.rotate_state=hand_over"}},
        {"block", {"partial.assign=block", "partial.rotate_every=1"}}}},
      {"rule",
       {{"auto", {}},
        {"nesterov", {"outer.lr=0.5", "outer.cut_lr=0.3", "outer.momentum=0.5"}},
        {"sgd", {"outer.rule=sgd", "outer.lr=1", "outer.cut_lr=1"}},
        {"adam", {"outer.rule=adam", "outer.lr=0.01", "outer.cut_lr=0.01"}}}},
      {"average", {{"owners", {}}, {"slots", {"partial.average=slots", "outer.lr=0.5", "outer.cut_lr=0.5"}}}},
      {"mode", {{"exact", {}}, {"drop", {"mode=drop"}}}},
      {"inner", choices(Registry<InnerOptimizer>::builtin().names(), "adamw", "inner.name")},
      {"precision",
       {{"fp32", {}},
        {"bf16", {"model.precision=bf16"}},
        {"fp16", {"model.precision=fp16", "model.block=plain"}}}},
      {"outer extras",
       {{"none", {}}, {"decay and restarts", {"outer.weight_decay=0.1", "outer.restart_every=2"}}}}};
}

class Combinations : public ::testing::Test {
 protected:
  Combinations() {
    std::filesystem::create_directories(folder_.path() / "data");
    std::ofstream text(folder_.path() / "data" / "train.txt");
    for (int i = 0; i < 200; ++i) text << "the cat sees a hill, and " << i << " dogs like the sea.\n";
    std::ofstream(recipe_) << base_recipe;
  }

  std::vector<std::string> settings_of(const Row& row) const {
    std::vector<std::string> settings{"data.path=" + (folder_.path() / "data").string()};
    for (std::size_t f = 0; f < row.size(); ++f) {
      for (const std::string& setting : factors_[f].values[row[f]].settings) settings.push_back(setting);
    }
    return settings;
  }
  std::string name_of(const Row& row) const {
    std::string name;
    for (std::size_t f = 0; f < row.size(); ++f) {
      if (row[f] != 0) name += factors_[f].name + " " + factors_[f].values[row[f]].name + ", ";
    }
    return name;
  }
  /// Why a recipe is refused; empty: it is not.
  std::string refusal(const Row& row) {
    const auto [known, is_new] = refusals_.try_emplace(row);
    if (!is_new) return known->second;
    const Result<Recipe> recipe = parse_recipe(base_recipe, "recipe", settings_of(row), builtin_catalogs());
    if (!recipe.ok()) return known->second = recipe.error().message;
    const auto model = assemble_model(*recipe, 256);
    return known->second = model.ok() ? "" : model.error().message;
  }
  /// Every refusal names a setting that was asked for.
  void expect_a_reason(const Row& row, const std::string& reason) const {
    bool named = false;
    for (const std::string& setting : settings_of(row))
      named |= reason.find(setting.substr(0, setting.find('='))) != std::string::npos;
    EXPECT_TRUE(named) << name_of(row) << "is refused with: " << reason;
  }
  void expect_that_it_trains(const Row& row) {
    const std::string out = run_.string();
    std::filesystem::remove_all(out);
    std::vector<std::string> arguments{"debug", recipe_.string(), "--out", out, "--quiet"};
    for (const std::string& setting : settings_of(row)) arguments.insert(arguments.end(), {"--set", setting});
    const auto outcome = tessera(arguments);
    ASSERT_EQ(outcome.code, 0) << name_of(row) << outcome.err;
    std::ifstream metrics(std::filesystem::path(out) / "metrics.jsonl");
    int merges = 0;
    for (std::string line; std::getline(metrics, line); ++merges) {
      const nlohmann::json merge = nlohmann::json::parse(line);
      EXPECT_TRUE(merge.at("loss").is_number() && std::isfinite(merge.at("loss").get<double>()))
          << name_of(row);
    }
    EXPECT_GE(merges, 2) << name_of(row);
    expect_that_plan_counted(row);
  }
  /// What plan says that is kept lies in the run directory, to the byte.
  void expect_that_plan_counted(const Row& row) const {
    const Result<Recipe> recipe = parse_recipe(base_recipe, "recipe", settings_of(row), builtin_catalogs());
    const Result<ModelParts> model = assemble_model(*recipe, 256);
    const CostReport cost =
        cost_of(model->plan, model->specs, model->family->cost(), cost_settings(*recipe, *model));
    EXPECT_EQ(bytes_in_newest(run_ / "log", "state-", ""), cost.coordinator_bytes - cost.accumulator_bytes)
        << name_of(row) << "parameters and outer state";
    if (recipe->partial.rotate_every > 0) return;  // a slot's rows are no longer those of version 0
    for (const SlotCost& slot : cost.slots) {
      const std::string folder = "0" + std::to_string(slot.slot);
      double kept = 0;
      for (const char* kind : {"inner/", "feedback/", "method/"})
        kept += bytes_in_newest(run_ / "slots" / folder, "", kind);
      EXPECT_EQ(kept, slot.memory.moments + slot.memory.method) << name_of(row) << "slot " << slot.slot;
    }
  }
  /// Bytes of the tensors named `kind`... in the file of a folder that was written last; of each, where names
  /// tell fragments apart ("state-FRAGMENT-VERSION").
  static double bytes_in_newest(const std::filesystem::path& folder, const std::string& files,
                                const std::string& kind) {
    std::map<std::string, std::filesystem::path> newest;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with(files) || !name.ends_with(".safetensors")) continue;
      std::filesystem::path& file = newest[files.empty() ? "" : name.substr(0, name.rfind('-'))];
      const bool newer = file.empty() || (files.empty() ? last_write_time(entry) > last_write_time(file)
                                                        : name > file.filename().string());
      if (newer) file = entry.path();
    }
    double bytes = 0;
    for (const auto& [fragment, file] : newest) {
      const auto tensors = decode_safetensors(read_file(file).value(), file.string()).value().tensors;
      for (const auto& [name, tensor] : tensors)
        bytes += name.starts_with(kind) ? static_cast<double>(tensor.bytes().size()) : 0;
    }
    return bytes;
  }

  ~Combinations() override { std::filesystem::remove_all(run_); }

  ScratchFolder folder_;
  /// In memory where it can be: hundreds of runs would wait for a busy disk.
  const std::filesystem::path run_ =
      (std::filesystem::exists("/dev/shm") ? std::filesystem::path("/dev/shm") : folder_.path()) /
      (folder_.path().filename().string() + "-run");
  const std::filesystem::path recipe_ = folder_.path() / "recipe.toml";
  const std::vector<Factor> factors_ = factors();
  std::map<Row, std::string> refusals_;
};

struct Choice2 {
  std::size_t factor, value;
  auto operator<=>(const Choice2&) const = default;
};
using Pair = std::pair<Choice2, Choice2>;

std::vector<Pair> pairs_in(const Row& row) {
  std::vector<Pair> pairs;
  for (std::size_t f = 0; f < row.size(); ++f) {
    for (std::size_t g = f + 1; g < row.size(); ++g) pairs.push_back({{f, row[f]}, {g, row[g]}});
  }
  return pairs;
}

/// Greedy: a run begins with a pair that none has had yet, and takes on what else brings it most new pairs
/// and is not refused.
TEST_F(Combinations, EveryPairTrainsOrIsRefusedWithAReason) {
  std::set<Pair> waiting;
  for (std::size_t f = 0; f < factors_.size(); ++f) {
    for (std::size_t g = f + 1; g < factors_.size(); ++g) {
      for (std::size_t a = 0; a < factors_[f].values.size(); ++a) {
        for (std::size_t b = 0; b < factors_[g].values.size(); ++b) waiting.insert({{f, a}, {g, b}});
      }
    }
  }
  const std::size_t all = waiting.size();
  std::size_t refused = 0, runs = 0;
  std::set<std::string> reasons;
  while (!waiting.empty()) {
    const auto [first, second] = *waiting.begin();
    Row row(factors_.size(), 0);
    row[first.factor] = first.value;
    row[second.factor] = second.value;
    const std::string reason = refusal(row);
    if (!reason.empty()) {
      expect_a_reason(row, reason);
      reasons.insert(reason.substr(0, reason.find('\n')));
      waiting.erase(waiting.begin());
      ++refused;
      continue;
    }
    for (std::size_t f = 0; f < factors_.size(); ++f) {
      if (f == first.factor || f == second.factor) continue;
      const auto gain = [&](const Row& of) {
        const std::vector<Pair> pairs = pairs_in(of);
        return std::count_if(pairs.begin(), pairs.end(), [&](const Pair& p) { return waiting.contains(p); });
      };
      Row best = row;
      for (std::size_t value = 1; value < factors_[f].values.size(); ++value) {
        Row tried = row;
        tried[f] = value;
        if (gain(tried) > gain(best) && refusal(tried).empty()) best = tried;
      }
      row = best;
    }
    expect_that_it_trains(row);
    ++runs;
    for (const Pair& pair : pairs_in(row)) waiting.erase(pair);
  }
  for (const std::string& reason : reasons) std::cout << "refused: " << reason << "\n";
  std::cout << all << " pairs, " << refused << " of them refused, the others in " << runs << " runs\n";
  EXPECT_LT(refused, all / 4);
}

TEST_F(Combinations, TheFullMatrix) {
  const char* wanted = std::getenv("TESSERA_COMBINATIONS");
  if (wanted == nullptr) GTEST_SKIP() << "TESSERA_COMBINATIONS=all, or a method's name, runs it";
  std::size_t runs = 0, refused = 0;
  Row row(factors_.size(), 0);
  for (row[0] = 0; row[0] < factors_[0].values.size(); ++row[0]) {
    const std::string method = factors_[0].values[row[0]].name;
    if (wanted != std::string("all") && wanted != method) continue;
    for (row[1] = 0; row[1] < factors_[1].values.size(); ++row[1]) {
      for (row[2] = 0; row[2] < factors_[2].values.size(); ++row[2]) {
        for (row[3] = 0; row[3] < factors_[3].values.size(); ++row[3]) {
          for (row[4] = 0; row[4] < factors_[4].values.size(); ++row[4]) {
            const std::string reason = refusal(row);
            if (reason.empty()) {
              expect_that_it_trains(row);
            } else {
              expect_a_reason(row, reason);
            }
            ++(reason.empty() ? runs : refused);
          }
        }
      }
    }
    std::cout << method << ": " << runs << " runs, " << refused << " refused so far\n";
  }
  EXPECT_GT(runs, 0u);
}

}  // namespace
}  // namespace tessera
