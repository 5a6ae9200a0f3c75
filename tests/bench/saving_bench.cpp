// How much of a cut's saving arrives as time: backward passes of the sliced layers (the plain products, and
// the fast block as a whole) and whole steps, uncut and in 2, 4 and 8 slices, in turn within one run. Prints
// the share of the time that is saved, the share of the operations that the formula saves of the same
// stretch, and how much of it arrived: medians over the rounds. Arguments: rounds, threads (one: processor
// time, more: the wall's).
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>

#include "coordinator/cost.h"
#include "coordinator/planner.h"
#include "models/family.h"
#include "models/layers/fast_block.h"
#include "models/layers/sliced_linear.h"
#include "optim/grad_clip.h"
#include "optim/inner.h"
#include "optim/objective.h"
#include "worker/numerics.h"

namespace tessera {
namespace {

constexpr std::int64_t width = 768, heads = 8, layers = 2, vocab = 2048, context = 256, batch = 4;

struct SetModel final : FieldVisitor {
  std::string block;
  void field(const FieldInfo& info, std::int64_t& value) override {
    if (info.name == "width") value = width;
    if (info.name == "heads") value = heads;
    if (info.name == "layers") value = layers;
    if (info.name == "context") value = context;
    if (info.name == "vocab") value = vocab;
  }
  void field(const FieldInfo& info, std::string& value) override {
    if (info.name == "block") value = block;
  }
  void field(const FieldInfo&, bool&) override {}
  void field(const FieldInfo&, double&) override {}
  void field(const FieldInfo&, std::vector<double>&) override {}
  void field(const FieldInfo&, std::vector<std::string>&) override {}
  void group(const FieldInfo&, Settings&) override {}
  void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {}
};

struct Model {
  std::unique_ptr<Family> family;
  ParamStore params;
  explicit Model(std::unique_ptr<Family> made) : family(std::move(made)), params(family->specs()) {
    family->initialize(params, 1);
  }
  static std::unique_ptr<Family> make(const char* block) {
    auto settings = Registry<Family>::builtin().make_settings("gpt");
    SetModel set;
    set.block = block;
    settings->fields(set);
    return Registry<Family>::builtin().make("gpt", *settings, {});
  }
  RowSet owned(const std::string& cut, std::int64_t slices) const {
    PartialSettings partial;
    partial.cut = slices == 1 ? "none" : cut;
    partial.slices = slices;
    return make_plan(family->specs(), family->cuts(), partial, static_cast<std::int32_t>(slices))
        ->owned_by(0);
  }
};

/// With one thread, processor time, which others on the machine disturb less; with more, time on the wall.
double now() {
  if (at::get_num_threads() == 1) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds_of(const std::function<void()>& work) {
  const double start = now();
  work();
  return now() - start;
}

// ---- what is timed: each gives the seconds of one run of a slot with these rows ----

/// Backward through the products that a cut slices, and the gelu between them.
double plain_layers(Model& model, bool with_heads) {
  const ParamStore& p = model.params;
  const at::Tensor x = at::randn({batch * context, width}).requires_grad_(true);
  const auto weight = [&p](const char* name) -> const Parameter& {
    return p[std::string("blocks.0.") + name];
  };
  at::Tensor y = linear_in(at::gelu(linear_out(x, weight("mlp.up"))), weight("mlp.down"));
  if (with_heads) {
    y = y + linear_in(linear_out(x, weight("attention.q")) + linear_out(x, weight("attention.k")) +
                          linear_out(x, weight("attention.v")),
                      weight("attention.o"));
  }
  const at::Tensor dy = at::randn_like(y);
  const double seconds = seconds_of([&] { y.backward(dy); });
  model.params.clear_gradients();
  return seconds;
}

double fast_layers(Model& model) {
  const ParamStore& p = model.params;
  const auto get = [&p](const char* name) { return &p[std::string("blocks.0.") + name]; };
  const FastBlockParameters parameters{.norm1_gain = get("norm1.gain"),
                                       .q = get("attention.q"),
                                       .k = get("attention.k"),
                                       .v = get("attention.v"),
                                       .o = get("attention.o"),
                                       .norm2_gain = get("norm2.gain"),
                                       .up = get("mlp.up"),
                                       .down = get("mlp.down")};
  const at::Tensor x = at::randn({batch, context, width}).requires_grad_(true);
  const FastBlockShape shape{width, heads, heads, width / heads, 4 * width};
  p.arena()->expect(batch * context);
  at::Tensor y = fast_block(x, shape, parameters, {}, {}, p.arena());
  const at::Tensor dy = at::randn_like(y);
  const double seconds = seconds_of([&] { y.backward(dy); });
  model.params.clear_gradients();
  return seconds;
}

struct Step {
  std::unique_ptr<Objective> objective = Registry<Objective>::builtin().make("cross_entropy", {});
  std::unique_ptr<InnerOptimizer> inner;
  std::int64_t count = 0;
};

double whole_step(Model& model, Step& step) {
  const NamedTensors data{{"tokens", at::randint(vocab, {batch, context}, at::kLong)},
                          {"targets", at::randint(vocab, {batch, context}, at::kLong)}};
  return seconds_of([&] {
    model.params.clear_gradients();
    const Objective::Value loss = (*step.objective)(model.family->forward(model.params, data), data);
    loss.sum.div(loss.weight).backward();
    std::vector<Piece> pieces;
    for (const auto& [name, parameter] : model.params.all()) {
      for (const Leaf& leaf : parameter.leaves) {
        pieces.push_back({.name = piece_name(name, leaf.rows, parameter.spec.rows()),
                          .value = leaf.value.detach(),
                          .gradient = leaf.value.grad(),
                          .decay = parameter.spec.decay});
      }
    }
    clip_gradients(pieces, {.mode = ClipSettings::Mode::local, .max_norm = 1}, 0);
    step.inner->step(pieces, 1e-4, ++step.count);
  });
}

// ---- rounds ----

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Times `run` for 1, 2, 4 and 8 slices in turn; `formula` says what share of it the operations saved are.
void measure(const char* what, const std::string& cut, Model& model, int rounds,
             const std::function<double(int)>& run, const std::function<double(std::int64_t)>& formula) {
  const std::vector<std::int64_t> slices{1, 2, 4, 8};
  std::vector<RowSet> owned;
  for (const std::int64_t n : slices) owned.push_back(model.owned(cut, n));
  std::vector<std::vector<double>> seconds(slices.size()), saved(slices.size());
  for (int round = -1; round < rounds; ++round) {  // the first warms up
    std::vector<double> times;
    for (std::size_t i = 0; i < slices.size(); ++i) {
      model.params.set_trainable(owned[i]);
      times.push_back(std::min(run(static_cast<int>(i)), run(static_cast<int>(i))));
    }
    for (std::size_t i = 0; i < slices.size() && round >= 0; ++i) {
      seconds[i].push_back(times[i]);
      saved[i].push_back(1 - times[i] / times[0]);
    }
  }
  for (std::size_t i = 1; i < slices.size(); ++i) {
    const double share = formula(slices[i]), time = median(saved[i]);
    std::printf("| %s | %s | %ld | %.1f | %.1f %% | %.1f %% | %.0f %% |\n", what, cut.c_str(),
                static_cast<long>(slices[i]), 1000 * median(seconds[i]), 100 * time, 100 * share,
                100 * time / share);
    std::fflush(stdout);
  }
}

int bench(int rounds, int threads) {
  prepare_numerics(threads);
  at::manual_seed(1);
  const double tokens = batch * context;
  std::printf(
      "| what | cut | slices | ms | time saved | operations saved | arrived "
      "|\n|---|---|---|---|---|---|---|\n");
  for (const std::string cut : {"mlp", "mlp+heads"}) {
    const bool with_heads = cut != "mlp";
    Model plain(Model::make("plain")), fast(Model::make("fast"));
    const double products = (with_heads ? 12 : 8) * width * width;  // sliced, of one block
    measure(
        "products of the sliced layers, backward", cut, plain, rounds,
        [&](int) { return plain_layers(plain, with_heads); },
        [](std::int64_t n) { return 0.5 * (1 - 1.0 / static_cast<double>(n)); });
    measure(
        "fast block, backward", cut, fast, rounds, [&](int) { return fast_layers(fast); },
        [&](std::int64_t n) {
          const double all = 4.0 * 12 * width * width + 4.0 * context * width;  // A + W of a block
          return 2 * products * (1 - 1.0 / static_cast<double>(n)) / all;
        });
    for (Model* model : {&plain, &fast}) {
      Step steps[4];
      for (Step& step : steps) step.inner = Registry<InnerOptimizer>::builtin().make("adamw", {});
      measure(
          model == &plain ? "whole step, plain" : "whole step, fast", cut, *model, rounds,
          [&](int arm) { return whole_step(*model, steps[arm]); },
          [&](std::int64_t n) {
            const auto specs = model->family->specs();
            const CostModel shape = model->family->cost();
            return 1 - step_flops(specs, model->owned(cut, n), shape, tokens).total() /
                           step_flops_uncut(specs, shape, tokens).total();
          });
    }
  }
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  return tessera::bench(argc > 1 ? std::atoi(argv[1]) : 9, argc > 2 ? std::atoi(argv[2]) : 2);
}
