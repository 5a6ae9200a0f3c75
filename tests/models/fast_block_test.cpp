// The hand-written block and head against the plain operators in double precision: outputs, every gradient,
// what is computed and kept for slices.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/random.h"
#include "models/layers/fast_products.h"
#include "tests/models/block_fixtures.h"
#include "tests/models/count_products.h"

namespace tessera {
namespace {

using namespace testing;

const std::vector<const char*> settings_grid = {
    R"({"width": 24, "heads": 4, "ffn": 40})",                                            // head size 6
    R"({"width": 48, "heads": 2, "ffn": 100, "bias": true})",                             // head size 24
    R"({"width": 64, "heads": 4, "kv_heads": 2, "positions": "rotary", "bias": true})",   // 16, grouped
    R"({"width": 64, "heads": 2, "norm": "rmsnorm", "activation": "swiglu"})",            // 32
    R"({"width": 64, "heads": 1, "activation": "swiglu", "bias": true, "tied": false})",  // 64
    R"({"width": 30, "heads": 5, "kv_heads": 1, "positions": "rotary", "norm": "rmsnorm", "bias": true,
        "activation": "swiglu", "ffn": 37})",  // one group for all heads
    R"({"width": 600, "heads": 2, "kv_heads": 1, "positions": "rotary", "ffn": 24})",  // 300: more than one
                                                                                       // pass
};

Trainee make(const char* settings, const char* block, at::ScalarType type = at::kFloat,
             const char* precision = "fp32") {
  Json json = Json::parse(settings);
  json["block"] = block;
  json["precision"] = precision;
  json["layers"] = 2;
  json["context"] = 300;
  Trainee model(make_plugin<Family>("gpt", json, {.vocab = 37}), 5, type);
  perturb(model);
  return model;
}

NamedTensors batch_of(std::int64_t sequences, std::int64_t length) {
  at::manual_seed(static_cast<std::uint64_t>(length));
  return {{"tokens", at::randint(37, {sequences, length}, at::kLong)},
          {"targets", at::randint(37, {sequences, length}, at::kLong)}};
}

TEST(FastBlock, OutputsAndEveryGradientEqualThePlainOperators) {
  for (const char* settings : settings_grid) {
    for (const std::int64_t length : {1, 17, 33, 128, 290}) {
      if (length == 290 && settings != settings_grid[0] && settings != settings_grid[2]) continue;  // slow
      SCOPED_TRACE(std::string(settings) + " length " + std::to_string(length));
      Trainee fast = make(settings, "fast"), exact = make(settings, "plain", at::kDouble);
      for (auto& [name, parameter] : exact.params.all()) parameter.full.copy_(fast.params[name].full);
      const NamedTensors batch = batch_of(2, length);
      EXPECT_LT(relative_error(fast.family->forward(fast.params, batch).at("logits"),
                               exact.family->forward(exact.params, batch).at("logits")),
                1e-5);
      fast.params.set_all_trainable();
      exact.params.set_all_trainable();
      fast.backward(batch);
      exact.backward(batch);
      // Gradients that are zero but for rounding (a bias of the keys, one token) count as parts of larger
      // ones.
      double floor = 0;
      for (const auto& [name, parameter] : exact.params.all()) {
        floor = std::max(floor, 0.05 * parameter.leaves[0].value.grad().abs().max().item<double>());
      }
      for (const auto& [name, parameter] : fast.params.all()) {
        const at::Tensor& expected = exact.params[name].leaves[0].value.grad();
        EXPECT_LT(relative_error(parameter.leaves[0].value.grad(), expected, floor), 1e-5) << name;
      }
      EXPECT_EQ(fast.params.arena()->in_use(), 0) << "buffers did not come back";
    }
  }
}

TEST(FastBlock, SlicedGradientsAreTheBitsOfTheFullOnes) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const char* settings = settings_grid[seed % settings_grid.size()];
    SCOPED_TRACE(std::string(settings) + " seed " + std::to_string(seed));
    const char* precision = seed % 2 == 1 && why_not(Precision::bf16).empty() ? "bf16" : "fp32";
    Trainee whole = make(settings, "fast", at::kFloat, precision),
            sliced = make(settings, "fast", at::kFloat, precision);
    const NamedTensors batch = batch_of(3, 19);
    whole.params.set_all_trainable();
    sliced.params.set_trainable(random_rows(*sliced.family, seed));
    EXPECT_EQ(whole.backward(batch), sliced.backward(batch));
    for (const auto& [name, parameter] : sliced.params.all()) {
      for (const Leaf& leaf : parameter.leaves) {
        const at::Tensor all = whole.params[name].leaves[0].value.grad();
        const at::Tensor part = all.narrow(0, leaf.rows.begin, leaf.rows.count());
        if (name == "embed.tokens" && !parameter.whole()) {
          EXPECT_LT(relative_error(leaf.value.grad(), part, 1e-3), 1e-6) << name;  // added to the embedding's
        } else {
          EXPECT_TRUE(same_bits(leaf.value.grad(), part)) << name << " rows from " << leaf.rows.begin;
        }
      }
    }
  }
}

TEST(FastBlock, KeepsNothingThatOnlyFrozenGradientsNeed) {
  const std::int64_t width = 64, heads = 4, keys = 32, ffn = 96, rows = 2 * 19, vocab = 37;
  const auto kept = [&](const RowSet& owned) {
    Trainee model = make(R"({"width": 64, "heads": 4, "kv_heads": 2, "ffn": 96})", "fast");
    model.params.set_trainable(owned);
    const at::Tensor logits = model.family->forward(model.params, batch_of(2, 19)).at("logits");
    EXPECT_EQ(logits.size(2), vocab);
    return model.params.arena()->in_use();
  };
  // What gradients of activations need: norms, q, k, v, attention's output, residual stream, gelu's slopes.
  const std::int64_t block = rows * (4 + width + 2 * keys + width + heads + width + ffn), head = rows * 2;
  const RowSet lowest{{"embed.positions", {{0, 1}}}};
  EXPECT_EQ(kept({}), 0);
  EXPECT_EQ(kept(lowest), 2 * block + head);
  const auto with = [&](const char* name, std::int64_t begin, std::int64_t end) {
    RowSet owned = lowest;
    owned[name] = {{begin, end}};
    return kept(owned) - (2 * block + head);
  };
  EXPECT_EQ(with("blocks.1.attention.k", 3, 5), rows * width) << "input of q, k and v";
  EXPECT_EQ(with("blocks.1.attention.o", 0, 64), 0) << "the attention's output is there";
  EXPECT_EQ(with("blocks.1.mlp.up", 3, 5), rows * width) << "input of up";
  EXPECT_EQ(with("blocks.1.mlp.down", 10, 15), rows * 5) << "owned hidden units";
  EXPECT_EQ(with("blocks.1.mlp.down", 0, 96), rows * 96);
  EXPECT_EQ(with("blocks.1.norm1.gain", 0, 64), 0);
  EXPECT_EQ(with("embed.tokens", 0, 64 - 27), rows * width) << "input of the tied head";
}

TEST(FastBlock, NothingIsComputedBelowTheLowestOwnedRows) {
  Trainee model = make(R"({"width": 64, "heads": 4, "ffn": 96, "tied": false})", "fast");
  const NamedTensors batch = batch_of(2, 19);
  const auto work = [&](const RowSet& owned) {
    model.params.set_trainable(owned);
    FlopCounter counter;
    const FlopScope scope(counter);
    model.backward(batch);
    return counter;
  };
  const double rows = 2 * 19, attention = 2 * 64 * 2 * 19 * 9.5;  // half of all pairs
  const FlopCounter down = work({{"blocks.1.mlp.down", {{0, 96}}}}),
                    up = work({{"blocks.1.mlp.up", {{0, 96}}}}),
                    q = work({{"blocks.1.attention.q", {{8, 12}}}});
  EXPECT_EQ(down.forward, 2 * (rows * (4 * 64 * 64 + 2 * 64 * 96) + attention) + rows * 37 * 64);
  EXPECT_EQ(down.activation_gradient, rows * 37 * 64);
  EXPECT_EQ(down.weight_gradient, rows * 64 * 96);
  EXPECT_EQ(up.activation_gradient, rows * (37 * 64 + 64 * 96));
  EXPECT_EQ(q.activation_gradient, rows * (37 * 64 + 2 * 64 * 96 + 64 * 64) + 2 * attention);
  EXPECT_EQ(q.weight_gradient, rows * 64 * 4);
}

TEST(FastBlock, NumberOfThreadsChangesNoBit) {
  const int before = at::get_num_threads();
  std::vector<Trainee> models;
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    models.push_back(make(settings_grid[2], "fast"));
    models.back().params.set_all_trainable();
    models.back().backward(batch_of(5, 128));
  }
  at::set_num_threads(before);
  for (const auto& [name, parameter] : models[0].params.all()) {
    if (name.starts_with("embed.")) continue;  // LibTorch's own
    EXPECT_TRUE(same_bits(parameter.leaves[0].value.grad(), models[1].params[name].leaves[0].value.grad()))
        << name;
  }
}

TEST(FastBlock, GraphsLiveSideBySideAndCanBeRunTwice) {
  Trainee model = make(settings_grid[3], "fast");
  model.params.set_all_trainable();
  const NamedTensors a = batch_of(2, 17), b = batch_of(2, 17);
  const auto gradient = [&](const NamedTensors& batch) {
    model.backward(batch);
    return model.params["blocks.0.mlp.gate"].leaves[0].value.grad().clone();
  };
  const at::Tensor of_a = gradient(a), of_b = gradient(b);
  model.params.clear_gradients();
  const at::Tensor first = model.loss(a), second = model.loss(b);
  first.backward({}, /*retain_graph=*/true);
  EXPECT_TRUE(same_bits(model.params["blocks.0.mlp.gate"].leaves[0].value.grad(), of_a));
  model.params.clear_gradients();
  second.backward();
  EXPECT_TRUE(same_bits(model.params["blocks.0.mlp.gate"].leaves[0].value.grad(), of_b));
  model.params.clear_gradients();
  first.backward();
  EXPECT_TRUE(same_bits(model.params["blocks.0.mlp.gate"].leaves[0].value.grad(), of_a));
}

TEST(FastBlock, Bf16StaysWithinItsBoundOfFp32) {
  if (!why_not(Precision::bf16).empty()) GTEST_SKIP() << why_not(Precision::bf16);
  for (const char* settings : settings_grid) {
    for (const std::int64_t length : {1, 17, 128}) {
      SCOPED_TRACE(std::string(settings) + " length " + std::to_string(length));
      Trainee half = make(settings, "fast", at::kFloat, "bf16"), full = make(settings, "fast");
      const NamedTensors batch = batch_of(4, length);
      expect_within_bf16(half, full, batch);
    }
  }
}

TEST(FastBlockDeathTest, SecondDerivativesAreRefusedWithTheWayOut) {
  Trainee model = make(settings_grid[0], "fast");
  model.params.set_all_trainable();
  const at::Tensor loss = model.loss(batch_of(1, 5));
  const at::Tensor& leaf = model.params["blocks.0.mlp.up"].leaves[0].value;
  EXPECT_DEATH(torch::autograd::grad({loss}, {leaf}, {}, std::nullopt, /*create_graph=*/true),
               "model.block = \"plain\"");
}

}  // namespace
}  // namespace tessera
