// Low-rank adapters in the GPT: nothing changes while B is zero, and the gradients are those of W + scale B
// A.
#include "models/layers/adapter.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <set>

#include "base/cost_model.h"
#include "tests/models/count_products.h"
#include "tests/models/fixtures.h"

namespace tessera {
namespace {

using namespace testing;

constexpr double scale = 2.0;  // alpha / rank

Json settings(std::int64_t rank, const std::string& targets) {
  return {{"width", 24},
          {"layers", 2},
          {"heads", 4},
          {"kv_heads", 2},
          {"context", 12},
          {"activation", "swiglu"},
          {"adapter_rank", rank},
          {"adapter_alpha", scale * static_cast<double>(rank)},
          {"adapter_targets", targets}};
}
Trainee make(std::int64_t rank, const std::string& targets = "mlp+heads") {
  return Trainee(make_plugin<Family>("gpt", settings(rank, targets), {.vocab = 40}), 7, at::kDouble);
}
bool is_adapted(const Trainee& model, const std::string& name) {
  return model.params.all().contains(name + "_adapter_a");
}

// What stands between two layers, to an optimizer: the blocks' matrices, and nothing of tables, head, gains
// and adapters.
TEST(Adapter, HiddenMatricesAreTheBlocksOwn) {
  Json untied = settings(3, "mlp+heads");
  untied["tied"] = false;
  const auto family = make_plugin<Family>("gpt", untied, {.vocab = 40});
  std::set<std::string> hidden, expected;
  for (const ParamSpec& spec : family->specs()) {
    if (is_hidden_matrix(spec)) hidden.insert(spec.name);
  }
  for (const std::string block : {"blocks.0.", "blocks.1."}) {
    for (const char* name :
         {"attention.q", "attention.k", "attention.v", "attention.o", "mlp.up", "mlp.gate", "mlp.down"})
      expected.insert(block + name);
  }
  EXPECT_EQ(hidden, expected);
}

TEST(Adapter, WithBZeroTheLogitsAreExactlyThoseWithoutAdapters) {
  for (const char* targets : {"mlp", "heads", "mlp+heads"}) {
    const Trainee plain = make(0), adapted = make(3, targets);
    const NamedTensors batch = plain.family->example_batch(1);
    EXPECT_TRUE(same_bits(adapted.family->forward(adapted.params, batch).at("logits"),
                          plain.family->forward(plain.params, batch).at("logits")))
        << targets;
    const std::set<std::string> kinds = [&] {
      std::set<std::string> found;
      for (const auto& [name, parameter] : plain.params.all()) {
        if (is_adapted(adapted, name)) found.insert(name.substr(name.find('.', 7) + 1));
      }
      return found;
    }();
    const std::set<std::string> mlp{"mlp.up", "mlp.gate", "mlp.down"},
        heads{"attention.q", "attention.k", "attention.v", "attention.o"};
    std::set<std::string> wanted;
    if (targets != std::string("heads")) wanted.insert(mlp.begin(), mlp.end());
    if (targets != std::string("mlp")) wanted.insert(heads.begin(), heads.end());
    EXPECT_EQ(kinds, wanted);
  }
}

/// A model with random adapters, and the one without whose weights are W + scale B A.
struct Pair {
  Trainee adapted = make(3), merged = make(0);
  Pair() {
    at::manual_seed(3);
    for (auto& [name, parameter] : adapted.params.all())
      parameter.full.add_(at::randn_like(parameter.full), 0.1);
    for (auto& [name, parameter] : merged.params.all()) {
      parameter.full.copy_(adapted.params[name].full);
      if (is_adapted(adapted, name)) {
        parameter.full.add_(at::mm(b(name), a(name)), scale);
      }
    }
  }
  at::Tensor a(const std::string& name) const { return adapted.params[name + "_adapter_a"].full; }
  at::Tensor b(const std::string& name) const { return adapted.params[name + "_adapter_b"].full; }
};

TEST(Adapter, LogitsAndGradientsAreThoseOfTheMergedMatrix) {
  Pair pair;
  const NamedTensors batch = pair.merged.family->example_batch(2);
  EXPECT_LT(relative_error(pair.adapted.family->forward(pair.adapted.params, batch).at("logits"),
                           pair.merged.family->forward(pair.merged.params, batch).at("logits")),
            1e-12);
  pair.adapted.params.set_all_trainable();
  pair.merged.params.set_all_trainable();
  pair.adapted.backward(batch);
  pair.merged.backward(batch);
  const auto gradient = [](const Trainee& model, const std::string& name) {
    return model.params[name].leaves[0].value.grad();
  };
  for (const auto& [name, parameter] : pair.merged.params.all()) {
    const at::Tensor dw = gradient(pair.merged, name);
    EXPECT_LT(relative_error(gradient(pair.adapted, name), dw), 1e-10) << name;
    if (!is_adapted(pair.adapted, name)) continue;
    EXPECT_LT(
        relative_error(gradient(pair.adapted, name + "_adapter_b"), at::mm(dw, pair.a(name).t()) * scale),
        1e-10)
        << name;
    EXPECT_LT(
        relative_error(gradient(pair.adapted, name + "_adapter_a"), at::mm(pair.b(name).t(), dw) * scale),
        1e-10)
        << name;
  }
}

TEST(Adapter, GradientsEqualFiniteDifferences) {
  Pair pair;
  Trainee& model = pair.adapted;
  const NamedTensors batch = model.family->example_batch(4);
  model.params.set_all_trainable();
  model.backward(batch);
  constexpr double h = 1e-5;
  int checked = 0;
  for (auto& [name, parameter] : model.params.all()) {
    if (name.find("_adapter_") == std::string::npos) continue;
    double* values = parameter.full.mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < parameter.full.numel(); i += 17, ++checked) {
      const double kept = values[i];
      values[i] = kept + h;
      const double above = model.loss(batch).item<double>();
      values[i] = kept - h;
      const double below = model.loss(batch).item<double>();
      values[i] = kept;
      EXPECT_NEAR(parameter.leaves[0].value.grad().flatten()[i].item<double>(), (above - below) / (2 * h),
                  1e-8)
          << name << " " << i;
    }
  }
  EXPECT_GT(checked, 50);
}

TEST(Adapter, FrozenMatricesCostNoWeightGradientAndTheirAdaptersOnlyTheRank) {
  Trainee model = make(3, "mlp"), plain = make(0);
  const NamedTensors batch = model.family->example_batch(5);
  RowSet owned;
  for (const ParamSpec& spec : model.params.specs()) {
    if (!is_adapted(model, spec.name)) add_rows(owned, spec.name, {0, spec.rows()});
  }
  model.params.set_trainable(owned);
  plain.params.set_all_trainable();
  const auto multiplications = [&](const Trainee& trainee) {
    const at::Tensor loss = trainee.loss(batch);
    const ProductCount count;
    loss.backward();
    return count.multiplications();
  };
  std::int64_t change = 0;  // per token
  for (const auto& [name, parameter] : model.params.all()) {
    if (is_adapted(model, name)) change -= parameter.full.numel();
    // Its own gradient, and that of the activations that go through it.
    if (name.find("_adapter_") != std::string::npos) change += 2 * parameter.full.numel();
  }
  EXPECT_EQ(multiplications(model) - multiplications(plain), change * batch.at("targets").numel());
  EXPECT_EQ(matmul_params(model.family->specs()) - matmul_params(plain.family->specs()),
            2 * 3 * 3 * (24 + 64));  // layers x matrices x rank x (width + units)
}

TEST(Adapter, TheRankOfTheFormulaTrainsAsManyParametersAsACut) {
  // width x ffn / (N (width + ffn)), for N = 4: 32 x 96 / (4 x 128) = 6.
  const auto family = make_plugin<Family>(
      "gpt", {{"width", 32}, {"ffn", 96}, {"layers", 2}, {"heads", 2}, {"adapter_rank", 6}}, {.vocab = 40});
  std::int64_t matrices = 0, adapters = 0;
  for (const ParamSpec& spec : family->specs()) {
    if (spec.name.find("_adapter_") != std::string::npos) {
      adapters += spec.elements();
    } else if (spec.name.find(".mlp.") != std::string::npos) {
      matrices += spec.elements();
    }
  }
  EXPECT_EQ(adapters, matrices / 4);
}

}  // namespace
}  // namespace tessera
