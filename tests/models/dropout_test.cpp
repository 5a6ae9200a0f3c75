// Dropout and attention masks: the hand-written block against the plain operators in double precision, over
// anything that they may be given; and what a mask must be a function of.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/random.h"
#include "models/batch_names.h"
#include "models/layers/block_options.h"
#include "models/layers/fast_products.h"
#include "tests/models/block_fixtures.h"

namespace tessera {
namespace {

using namespace testing;

constexpr std::int64_t vocab = 29;

Trainee make(Json json, const char* block, at::ScalarType type = at::kFloat) {
  json["block"] = block;
  Trainee model(make_plugin<Family>("gpt", json, {.vocab = vocab}), 5, type);
  perturb(model);
  return model;
}

at::Tensor draws_of(std::uint64_t key) {
  return at::full({}, static_cast<std::int64_t>(key), at::kLong);
}

/// A model and a batch drawn from a seed, with any head size, groups, lengths, masks and rate.
struct Drawn {
  Json model;
  NamedTensors batch;
  at::Tensor weights;  ///< of the logits in the loss: zero at padding
  std::int64_t longest = 0;

  explicit Drawn(std::uint64_t seed) {
    KeyedRandom random(key_of({seed, 4}));
    const auto below = [&random](std::uint64_t bound) {
      return static_cast<std::int64_t>(random.below(bound));
    };
    const std::int64_t groups = 1 + below(3), heads = groups * (1 + below(3)), size = 2 * (1 + below(20)),
                       length = 1 + below(70), sequences = 1 + below(4);
    model = {{"width", heads * size},
             {"heads", heads},
             {"kv_heads", groups},
             {"layers", 2},
             {"context", length},
             {"ffn", 8 + below(60)},
             {"bias", below(2) == 0},
             {"tied", below(2) == 0},
             {"positions", below(2) == 0 ? "learned" : "rotary"},
             {"activation", below(2) == 0 ? "gelu" : "swiglu"},
             {"norm", below(2) == 0 ? "layernorm" : "rmsnorm"},
             {"attention_mask", below(2) == 0 ? "causal" : "none"},
             {"dropout", below(4) == 0 ? 0.0 : 0.7 * random.uniform()}};
    at::manual_seed(seed);
    batch = {{"tokens", at::randint(vocab, {sequences, length}, at::kLong)},
             {batch_draws, draws_of(random())}};
    weights = at::randn({sequences, length, vocab}, at::kDouble);
    longest = length;
    if (below(3) == 0) return;
    const at::Tensor lengths = at::randint(length + 1, {sequences}, at::kLong);
    batch[batch_lengths] = lengths;
    weights *= (at::arange(length).unsqueeze(0) < lengths.unsqueeze(1)).unsqueeze(2);
    longest = lengths.max().item<std::int64_t>();
  }
  at::Tensor backward(Trainee& model) const {
    model.params.clear_gradients();
    const at::Tensor logits = model.family->forward(model.params, batch).at("logits");
    (logits * weights.to(logits.options())).sum().backward();
    return logits.detach();
  }
  at::Tensor valid(const at::Tensor& logits) const {
    const auto found = batch.find(batch_lengths);
    if (found == batch.end()) return logits;
    return logits.masked_fill(
        (at::arange(logits.size(1)).unsqueeze(0) >= found->second.unsqueeze(1)).unsqueeze(2), 0);
  }
};

TEST(Dropout, OutputsAndEveryGradientOfBothPathsAreEqualForAnyMaskAndRate) {
  const int threads = at::get_num_threads();
  for (std::uint64_t seed = 0; seed < 32; ++seed) {
    const Drawn drawn(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + " " + drawn.model.dump());
    Trainee fast = make(drawn.model, "fast"), sliced = make(drawn.model, "fast"),
            exact = make(drawn.model, "plain", at::kDouble);
    for (auto& [name, parameter] : exact.params.all()) parameter.full.copy_(fast.params[name].full);
    for (Trainee* model : {&fast, &exact}) model->params.set_all_trainable();
    sliced.params.set_trainable(random_rows(*sliced.family, seed));
    const at::Tensor logits = drawn.backward(fast), expected = drawn.backward(exact);
    EXPECT_LT(relative_error(logits, expected), 1e-5) << "padding too";
    if (drawn.longest == 0) continue;  // no loss
    at::set_num_threads(seed % 4 == 0 ? 3 : 1);
    const at::Tensor on_three = drawn.backward(sliced);
    at::set_num_threads(threads);
    EXPECT_TRUE(same_bits(on_three, logits));
    double floor = 0;  // for gradients that are zero but for rounding
    for (const auto& [name, parameter] : exact.params.all())
      floor = std::max(floor, 0.05 * parameter.leaves[0].value.grad().abs().max().item<double>());
    for (const auto& [name, parameter] : exact.params.all()) {
      const at::Tensor gradient = fast.params[name].leaves[0].value.grad();
      EXPECT_LT(relative_error(gradient, parameter.leaves[0].value.grad(), floor), 1e-5) << name;
      for (const Leaf& leaf : sliced.params[name].leaves) {
        const at::Tensor part = gradient.narrow(0, leaf.rows.begin, leaf.rows.count());
        EXPECT_LT(relative_error(leaf.value.grad(), part, floor), name == "embed.tokens" ? 1e-6 : 1e-30)
            << name;
      }
    }
    EXPECT_EQ(fast.params.arena()->in_use(), 0);
  }
}

TEST(Dropout, PaddingIsFiniteAndTouchesNothing) {
  std::int64_t padded = 0;
  for (std::uint64_t seed = 100; seed < 130; ++seed) {
    const Drawn drawn(seed);
    if (!drawn.batch.contains(batch_lengths)) continue;
    SCOPED_TRACE("seed " + std::to_string(seed) + " " + drawn.model.dump());
    for (const char* block : {"fast", "plain"}) {
      Trainee model = make(drawn.model, block);
      model.params.set_all_trainable();
      Drawn other = drawn;  // with other tokens where padding is
      const at::Tensor tokens = drawn.batch.at("tokens"), beyond = at::arange(tokens.size(1)).unsqueeze(0) >=
                                                                   drawn.batch.at(batch_lengths).unsqueeze(1);
      other.batch["tokens"] = at::where(beyond, (tokens + 1).remainder(vocab), tokens);
      padded += beyond.sum().item<std::int64_t>();
      std::map<std::string, at::Tensor> gradients;
      const at::Tensor first = drawn.backward(model);
      for (const auto& [name, parameter] : model.params.all())
        gradients[name] = parameter.leaves[0].value.grad().clone();
      const at::Tensor second = other.backward(model);
      EXPECT_TRUE(at::isfinite(first).all().item<bool>());
      EXPECT_TRUE(same_bits(drawn.valid(first), drawn.valid(second)));
      for (const auto& [name, parameter] : model.params.all()) {
        if (name == "embed.tokens") continue;  // LibTorch adds its rows in the order of the tokens
        EXPECT_TRUE(same_bits(parameter.leaves[0].value.grad(), gradients.at(name))) << block << " " << name;
      }
      if (model.params.all().contains("embed.positions")) {
        const at::Tensor rest = gradients.at("embed.positions").slice(0, drawn.longest);
        EXPECT_EQ(rest.abs().sum().item<double>(), 0);
      }
    }
  }
  EXPECT_GT(padded, 100);
}

/// Everything on which a mask depends: the step's key, the layer, the place. As far apart as chance is.
TEST(Dropout, DropsItsShareAndIsAnotherForEveryStepLayerAndPlace) {
  const double rate = 0.2;
  const std::int64_t rows = 96, width = 640, elements = rows * width;
  std::vector<std::pair<std::string, at::Tensor>> masks;
  for (std::uint64_t step = 0; step < 4; ++step) {
    for (std::int64_t layer = -1; layer < 3; ++layer) {
      const Dropout of_step{rate, key_of({1, 0, step})};
      const Dropout dropout = layer < 0 ? of_step : of_step.of_layer(layer);
      for (const DropoutPlace place : {DropoutPlace::embedding, DropoutPlace::probabilities,
                                       DropoutPlace::attention, DropoutPlace::mlp}) {
        const at::Tensor mask = tessera::dropout(at::ones({rows, width}), dropout.mask(place));
        const double share = (mask == 0).sum().item<double>() / static_cast<double>(elements);
        EXPECT_NEAR(share, rate, 4 * std::sqrt(rate * (1 - rate) / static_cast<double>(elements)));
        EXPECT_NEAR(mask.max().item<double>(), 1 / (1 - rate), 1e-6);
        masks.emplace_back(std::to_string(step) + "/" + std::to_string(layer) + "/" +
                               std::to_string(static_cast<int>(place)),
                           (mask > 0).to(at::kFloat).sub(1 - rate).flatten());
      }
    }
  }
  for (std::size_t a = 0; a < masks.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      const double correlation = masks[a].second.dot(masks[b].second).item<double>() /
                                 (rate * (1 - rate) * std::sqrt(static_cast<double>(elements)));
      EXPECT_LT(std::abs(correlation), 5) << masks[a].first << " with " << masks[b].first;  // of 2016 pairs
    }
  }
}

TEST(Dropout, OnlyABatchOfATrainingStepHasIt) {
  for (const char* block : {"fast", "plain"}) {
    Json settings = {{"width", 32}, {"heads", 2}, {"layers", 2}, {"context", 20}, {"dropout", 0.3}};
    Trainee with = make(settings, block);
    settings["dropout"] = 0.0;
    Trainee without = make(settings, block);
    NamedTensors batch = {{"tokens", at::randint(vocab, {2, 20}, at::kLong)}};
    const auto logits = [&](const Trainee& model) {
      return model.family->forward(model.params, batch).at("logits");
    };
    const at::Tensor evaluated = logits(with);
    EXPECT_TRUE(same_bits(evaluated, logits(without)));
    batch[batch_draws] = draws_of(1);
    const at::Tensor one = logits(with), same = logits(with);
    EXPECT_TRUE(same_bits(evaluated, logits(without))) << "nothing to draw";
    EXPECT_TRUE(same_bits(one, same));
    EXPECT_GT(relative_error(one, evaluated), 0.05);
    batch[batch_draws] = draws_of(2);
    EXPECT_GT(relative_error(logits(with), one), 0.05);
  }
}

TEST(Dropout, IsItsOwnAdjointTwiceAndKeepsNothing) {
  const DropoutMask mask = Dropout{0.4, 9}.mask(DropoutPlace::mlp);
  const at::Tensor x = at::randn({5, 33}).requires_grad_(true), w = at::randn({5, 33}),
                   factors = tessera::dropout(at::ones({5, 33}), mask);
  const at::Tensor y = tessera::dropout(x * x, mask);
  const at::Tensor dx =
      torch::autograd::grad({(y * w).sum()}, {x}, {}, std::nullopt, /*create_graph=*/true)[0];
  EXPECT_TRUE(at::allclose(dx, x * 2 * w * factors));
  const at::Tensor ddx = torch::autograd::grad({dx.sum()}, {x})[0];
  EXPECT_TRUE(at::allclose(ddx, 2 * w * factors));
}

TEST(Dropout, TheFastBlockKeepsNoMore) {
  const auto kept = [](double rate) {
    Trainee model =
        make({{"width", 32}, {"heads", 2}, {"layers", 2}, {"context", 20}, {"dropout", rate}}, "fast");
    model.params.set_all_trainable();
    const at::Tensor logits =
        model.family
            ->forward(model.params, {{"tokens", at::zeros({2, 20}, at::kLong)}, {batch_draws, draws_of(1)}})
            .at("logits");
    return model.params.arena()->in_use();
  };
  EXPECT_EQ(kept(0.5), kept(0));
}

TEST(Dropout, Bf16StaysWithinItsBoundsOfFp32) {
  if (!why_not(Precision::bf16).empty()) GTEST_SKIP() << why_not(Precision::bf16);
  const std::int64_t length = 120;
  for (
      const char* settings :
      {R"({"width": 48, "heads": 2, "ffn": 100, "bias": true, "attention_mask": "none"})",
       R"({"width": 64, "heads": 4, "kv_heads": 2, "positions": "rotary", "bias": true})",
       R"({"width": 64, "heads": 2, "norm": "rmsnorm", "activation": "swiglu", "attention_mask": "none"})"}) {
    SCOPED_TRACE(settings);
    Json json = Json::parse(settings);
    json.update({{"layers", 2}, {"context", length}, {"dropout", 0.1}});
    Trainee full = make(json, "fast");
    json["precision"] = "bf16";
    Trainee half = make(json, "fast");
    const NamedTensors batch = {{"tokens", at::randint(vocab, {4, length}, at::kLong)},
                                {"targets", at::randint(vocab, {4, length}, at::kLong)},
                                {batch_lengths, at::randint(1, length + 1, {4}, at::kLong)},
                                {batch_draws, draws_of(1)}};
    expect_within_bf16(half, full, batch);
  }
}

}  // namespace
}  // namespace tessera
