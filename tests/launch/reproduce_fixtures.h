// A small experiment in a scratch folder, and a runner that trains nothing: for tests of the harness.
#pragma once
#include <algorithm>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "launch/reproduce/campaign.h"

namespace tessera::testing_reproduce {

inline constexpr const char* base_toml = R"(
slots = 4
rounds = 8
[sync]
steps = 10
[inner]
lr = 0.004
[eval]
every = 2
)";

inline constexpr const char* arms_toml = R"(
title = "A test"
paper = "none"
reference = "diloco"
[sizes.s]
label = "small"
set.model.width = 32
[data.text]
path = "text"
[grids.outer]
low = {outer.lr = 0.2}
mid = {outer.lr = 0.5}
high = {outer.lr = 0.9}
[arms.rate]
report = false
grid = "inner"
[grids.inner]
one = {inner.lr = 0.001}
six = {inner.lr = 0.006}
[arms.diloco]
inherits = ["rate"]
grid = "outer"
[arms.cut]
label = "the cut"
inherits = ["rate", "diloco"]
set.partial.cut = "mlp"
[arms.parallel]
times = {rounds = 10, sync.steps = 0.1, eval.every = 10}
[profiles.full]
seeds = [1, 2, 3]
tuning_seed = 9
tuning_size = "s"
tuning_data = "text"
[profiles.full.covers.main]
size = "s"
data = "text"
arms = ["*"]
[plots.all]
arms = ["diloco", "cut"]
)";

/// A folder of its own, removed at the end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tessera-reproduce-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((std::filesystem::path(path_) / name).parent_path());
    std::ofstream(path_ + "/" + name) << text;
  }

 private:
  std::string path_;
};

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

inline double number_in(const std::map<std::string, std::string>& recipe, const std::string& name,
                        double otherwise) {
  const auto found = recipe.find(name);
  return found == recipe.end() ? otherwise : std::stod(found->second);
}

/// Resolves what the base file and the overrides say; `extra` are defaults of a later build.
inline ResolveUnit fake_resolve(const ExperimentSpec& spec, std::map<std::string, std::string> extra = {}) {
  return [&spec, extra](const std::vector<std::string>& overrides) -> Result<ResolvedUnit> {
    ResolvedUnit unit;
    unit.recipe = extra;
    for (const auto& [name, value] : spec.base) unit.recipe[name] = value;
    for (const std::string& text : overrides) {
      const std::size_t equals = text.find('=');
      const std::string name = text.substr(0, equals);
      if (name.find("unknown") != std::string::npos)
        return fail(ExitCode::usage, "--set ", name, ": there is no setting ", name);
      unit.recipe[name] = text.substr(equals + 1);
    }
    unit.rounds = static_cast<std::int64_t>(number_in(unit.recipe, "rounds", 0));
    unit.slots = static_cast<std::int64_t>(number_in(unit.recipe, "slots", 0));
    unit.eval_every = static_cast<std::int64_t>(number_in(unit.recipe, "eval.every", 0));
    unit.cost_settings.tokens_per_step = 64;
    unit.cost_settings.steps = static_cast<std::int64_t>(number_in(unit.recipe, "sync.steps", 0));
    SlotCost slot;
    slot.step.forward = unit.recipe.count("partial.cut") > 0 ? 85 : 100;
    slot.memory.weights = 1000;
    slot.bytes_up = slot.bytes_down = 500;
    const double steps = static_cast<double>(unit.cost_settings.steps);
    unit.workload.period = unit.cost_settings.steps;
    unit.workload.exchanges = {{0, unit.workload.period - 1, unit.workload.period}};
    unit.workload.groups = {{static_cast<double>(unit.slots), 1, {slot.step}, {{{0, 500, 500}}}}};
    for (int i = 0; i < unit.slots; ++i) {
      unit.cost.slots.push_back(slot);
      unit.cost.total.flops += steps * slot.step.total();
      unit.cost.total.bytes_up += slot.bytes_up;
      unit.cost.total.bytes_down += slot.bytes_down;
    }
    return unit;
  };
}

/// Ends units in the order in which they were started, with a loss that a function gives.
class FakeRunner final : public UnitRunner {
 public:
  using Loss = std::function<Result<double>(const UnitJob&)>;
  explicit FakeRunner(Loss loss) : loss_(std::move(loss)) {}

  Status prepare(const CorpusSpec& corpus) override {
    prepared.push_back(corpus.name);
    return no_corpus ? Status(fail(ExitCode::failed, "no text")) : Status();
  }
  Status start(const UnitJob& job) override {
    started.push_back(job.unit.name);
    jobs_.push_back(job);
    most_at_once = std::max(most_at_once, jobs_.size());
    return {};
  }
  std::optional<UnitEnd> poll() override {
    if (jobs_.empty()) return std::nullopt;
    const UnitJob job = jobs_.front();
    jobs_.pop_front();
    return end_of(job, loss_(job));
  }
  void stop() override {
    stopped = jobs_.size();
    jobs_.clear();
  }

  static UnitEnd end_of(const UnitJob& job, const Result<double>& loss) {
    if (!loss.ok()) return {job.unit.name, loss.error()};
    return {job.unit.name, result_of(job, *loss)};
  }
  static UnitResult result_of(const UnitJob& job, double loss) {
    UnitResult result;
    result.unit = job.unit;
    result.recipe = job.resolved.recipe;
    result.recipe_hash = recipe_hash_of(result.recipe);
    result.commit = "abc";
    result.final_loss = loss;
    result.tokens = job.resolved.tokens();
    result.flops = job.resolved.flops();
    result.bytes_up = static_cast<double>(job.resolved.rounds) * job.resolved.cost.total.bytes_up;
    result.bytes_down = static_cast<double>(job.resolved.rounds) * job.resolved.cost.total.bytes_down;
    result.wall_seconds = 20;
    result.cpu_seconds = 10;
    result.compute_seconds = 10;
    for (std::int64_t round = 2; round <= job.resolved.rounds; round += 2) {
      const double part = static_cast<double>(round) / static_cast<double>(job.resolved.rounds);
      result.curve.push_back({.round = round,
                              .tokens = part * result.tokens,
                              .flops = part * result.flops,
                              .bytes = 4000.0 * static_cast<double>(round),
                              .train_loss = loss + 1 - part,
                              .eval_loss = loss + 1 - part});
    }
    return result;
  }

  std::vector<std::string> prepared, started;
  std::size_t most_at_once = 0, stopped = 0;
  bool no_corpus = false;

 private:
  Loss loss_;
  std::deque<UnitJob> jobs_;
};

}  // namespace tessera::testing_reproduce
