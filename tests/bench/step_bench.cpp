// The C++ half of tests/bench/compare_eager.py: one slot, stepped on demand. Takes the model's shape on the
// command line, the block (fast, plain, or bf16: fast in that precision; wide: bf16 with frozen rows held in
// fp32) and the number of slices of which
// the slot owns one (cut mlp+heads; 1: it owns everything, 0: nothing of what is cut). Then reads a number of
// steps per line and answers with "milliseconds-per-step CPU-milliseconds-per-step loss".
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>

#include "base/random.h"
#include "tests/models/forwarding_family.h"
#include "worker/numerics.h"
#include "worker/replica.h"
#include "worker/trainer.h"

namespace tessera {
namespace {

struct Shape {
  std::int64_t vocab, width, heads, layers, context, batch;
  std::string block;
  std::int64_t slices;
};

/// Random tokens: what is in them does not matter for time.
class RandomTokens final : public DataSource {
 public:
  explicit RandomTokens(const Shape& shape) : shape_(shape) {}
  Status open() override { return {}; }
  std::string unit() const override { return "tokens"; }
  std::int64_t vocab() const override { return shape_.vocab; }
  std::uint64_t samples() const override { return 1u << 20; }
  Digest digest() const override { return {}; }
  Batch train(SlotId, std::uint64_t first, std::uint64_t count) const override {
    Batch batch;
    for (const char* name : {"tokens", "targets"}) {
      HostTensor tensor = HostTensor::empty(DType::i64, {static_cast<std::int64_t>(count), shape_.context});
      KeyedRandom random(key_of({first, static_cast<std::uint64_t>(name[1])}));
      for (auto& token : tensor.as<std::int64_t>()) {
        token = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(shape_.vocab)));
      }
      batch.tensors.emplace(name, tensor);
    }
    batch.units = static_cast<double>(static_cast<std::int64_t>(count) * shape_.context);
    return batch;
  }
  std::optional<Batch> held_out(std::uint64_t, std::uint64_t) const override { return std::nullopt; }

 private:
  Shape shape_;
};

struct Constant final : Schedule {
  double factor(std::int64_t) const override { return 1; }
};

/// Sets the named integers of a family's settings, its block and precision, and biases.
struct SetModel final : FieldVisitor {
  std::map<std::string, std::int64_t> values;
  std::string block;
  void field(const FieldInfo& info, std::int64_t& value) override {
    if (const auto found = values.find(info.name); found != values.end()) value = found->second;
  }
  void field(const FieldInfo& info, bool& value) override {
    if (info.name == "bias") value = true;
  }
  void field(const FieldInfo&, double&) override {}
  void field(const FieldInfo& info, std::string& value) override {
    if (info.name == "block") value = block == "plain" ? "plain" : "fast";
    if (info.name == "precision") value = block == "bf16" || block == "wide" ? "bf16" : "fp32";
  }
  void field(const FieldInfo&, std::vector<double>&) override {}
  void field(const FieldInfo&, std::vector<std::string>&) override {}
  void group(const FieldInfo&, Settings&) override {}
  void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {}
};

std::unique_ptr<Family> make_gpt(const Shape& shape) {
  auto settings = Registry<Family>::builtin().make_settings("gpt");
  SetModel set;
  set.block = shape.block;
  set.values = {{"width", shape.width},
                {"heads", shape.heads},
                {"layers", shape.layers},
                {"vocab", shape.vocab},
                {"context", shape.context}};
  settings->fields(set);
  return Registry<Family>::builtin().make("gpt", *settings, {});
}

/// Everything, or of what mlp+heads cuts the first of the slices, or none of it.
RowSet owned_rows(const Family& family, std::int64_t slices) {
  std::map<std::string, std::int64_t> cut;
  for (const CutGroup& group : family.cuts()) {
    if (group.kind == "layer") continue;
    for (const auto& m : group.members)
      cut[m.param] = slices == 0 ? 0 : group.units / slices * m.rows_per_unit;
  }
  RowSet owned;
  for (const ParamSpec& spec : family.specs()) {
    const std::int64_t rows = cut.contains(spec.name) ? cut[spec.name] : spec.rows();
    if (rows > 0) add_rows(owned, spec.name, {0, rows});
  }
  return owned;
}

int serve(const Shape& shape, int threads) {
  prepare_numerics(threads);
  const auto family = make_gpt(shape);
  const auto objective = Registry<Objective>::builtin().make("cross_entropy", {});
  const RandomTokens data(shape);
  const Constant schedule;
  const testing::HeldWide held_wide(*family);
  Replica replica(shape.block == "wide" ? static_cast<const Family&>(held_wide) : *family);
  family->initialize(replica.params(), 1);
  Trainer trainer({replica, *objective, schedule, data},
                  {.batch = shape.batch, .clip = {.mode = ClipSettings::Mode::local, .max_norm = 1}});
  SlotRun run;
  run.owned = owned_rows(*family, shape.slices);
  run.inner = Registry<InnerOptimizer>::builtin().make("adamw", {});
  for (int steps; std::cin >> steps;) {
    run.work = {};
    const std::clock_t cpu_start = std::clock();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i) {
      if (const Status status = trainer.step(run); !status) {
        std::fprintf(stderr, "%s\n", status.error().message.c_str());
        return 1;
      }
    }
    const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
    const double cpu = 1000.0 * static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
    std::printf("%.4f %.4f %.6f\n", spent.count() / steps, cpu / steps,
                run.work.loss_sum / run.work.loss_weight);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  if (argc != 10) {
    std::fprintf(stderr, "usage: %s VOCAB WIDTH HEADS LAYERS CONTEXT BATCH THREADS BLOCK SLICES\n", argv[0]);
    return 2;
  }
  const auto at = [argv](int i) { return std::atoll(argv[i]); };
  return tessera::serve({at(1), at(2), at(3), at(4), at(5), at(6), argv[8], at(9)}, static_cast<int>(at(7)));
}
