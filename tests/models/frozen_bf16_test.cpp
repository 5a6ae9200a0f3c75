// Split parameters: owned rows in fp32, frozen ones in bf16 alone. The products of the bf16 path round their
// operands anyway, so nothing but memory may change.
#include <ATen/Functions.h>

#include "base/cost_model.h"
#include "base/random.h"
#include "models/layers/fast_weight.h"
#include "tests/models/block_fixtures.h"

namespace tessera {
namespace {

using namespace testing;

class FrozenBf16 : public ::testing::Test {
  void SetUp() override {
    if (!why_not(Precision::bf16).empty()) GTEST_SKIP() << why_not(Precision::bf16);
  }
};

using FrozenBf16DeathTest = FrozenBf16;

constexpr const char* models[] = {
    R"({"width": 48, "heads": 2, "ffn": 100, "bias": true, "layers": 2, "context": 40, "precision": "bf16"})",
    R"({"width": 30, "heads": 5, "kv_heads": 1, "positions": "rotary", "norm": "rmsnorm", "ffn": 37, "tied": false,
        "activation": "swiglu", "layers": 2, "context": 40, "precision": "bf16"})",
    R"({"width": 600, "heads": 2, "positions": "rotary", "ffn": 1100, "layers": 1, "context": 40,
        "precision": "bf16"})"};  // more than one pass of a product's inner dimension

at::Tensor random_values(const ParamSpec& spec, std::int64_t seed) {
  at::manual_seed(static_cast<std::uint64_t>(seed));
  const double size = spec.shape.size() == 2 ? 1 / std::sqrt(static_cast<double>(spec.shape[1])) : 0.3;
  return at::randn(spec.shape).mul(size).add(spec.name.ends_with(".gain") ? 1 : 0);
}

/// The same model twice: frozen rows in bf16 alone, and everything in fp32.
struct Twins {
  Twins(const char* settings, std::uint64_t seed)
      : split(make_plugin<Family>("gpt", Json::parse(settings), {.vocab = 37}), 1),
        wide(make_plugin<Family>("gpt", Json::parse(settings), {.vocab = 37}), 1) {
    const RowSet owned = random_rows(*split.family, seed, 2);
    split.params = ParamStore(split.family->specs(), at::kFloat, split.family->frozen_rows());
    for (ParamStore* params : {&split.params, &wide.params}) params->set_trainable(owned);
    for (auto& [name, parameter] : split.params.all()) {
      const at::Tensor values = random_values(parameter.spec, static_cast<std::int64_t>(seed));
      parameter.write(values.const_data_ptr<float>());
      wide.params[name].full.copy_(values);
    }
  }
  Trainee split, wide;
};

NamedTensors batch_of(std::int64_t length) {
  at::manual_seed(static_cast<std::uint64_t>(length));
  return {{"tokens", at::randint(37, {3, length}, at::kLong)},
          {"targets", at::randint(37, {3, length}, at::kLong)}};
}

TEST_F(FrozenBf16, LossAndGradientsAreTheBitsOfABf16ModelThatHoldsEverythingInFp32) {
  std::int64_t split_rows = 0, gradients = 0;
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    const char* settings = models[seed % std::size(models)];
    SCOPED_TRACE(std::string(settings) + " seed " + std::to_string(seed));
    Twins twins(settings, seed);
    const NamedTensors batch = batch_of(1 + static_cast<std::int64_t>(seed) % 3 * 16);
    EXPECT_EQ(twins.split.backward(batch), twins.wide.backward(batch));
    for (const auto& [name, parameter] : twins.split.params.all()) {
      EXPECT_EQ(parameter.split(), is_matrix(parameter.spec)) << name;
      for (const HalfRows& half : parameter.halves) split_rows += half.rows.count();
      for (std::size_t i = 0; i < parameter.leaves.size(); ++i) {
        const at::Tensor &ours = parameter.leaves[i].value.grad(),
                         &theirs = twins.wide.params[name].leaves[i].value.grad();
        ASSERT_EQ(ours.defined(), theirs.defined()) << name;
        if (!ours.defined()) continue;
        EXPECT_TRUE(same_bits(ours, theirs)) << name << " rows from " << parameter.leaves[i].rows.begin;
        gradients += ours.numel();
      }
    }
    EXPECT_EQ(twins.split.params.arena()->in_use(), 0);
  }
  EXPECT_GT(split_rows, 1000);
  EXPECT_GT(gradients, 100000);
}

TEST_F(FrozenBf16, WritingRangesOfRowsIsWritingTheWhole) {
  const ParamSpec spec{.name = "w", .shape = {23, 5}};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    for (const FrozenRows frozen : {FrozenRows::bf16, FrozenRows::fp32}) {
      ParamStore once({spec}, at::kFloat, frozen), often({spec}, at::kFloat, frozen);
      RowSet owned;
      for (int i = 0; i < 3; ++i) {
        const auto begin = static_cast<std::int64_t>(random.below(22));
        add_rows(owned, "w", {begin, begin + 1 + static_cast<std::int64_t>(random.below(22 - begin))});
      }
      for (ParamStore* store : {&once, &often}) store->set_trainable(owned);
      const at::Tensor values = random_values(spec, static_cast<std::int64_t>(seed));
      once["w"].write(values.const_data_ptr<float>());
      std::int64_t next = 0;
      while (next < 23) {
        const auto count = 1 + static_cast<std::int64_t>(random.below(23 - next));
        often["w"].write({next, next + count}, values.const_data_ptr<float>() + 5 * next);
        next += count;
      }
      EXPECT_TRUE(same_bits(once["w"].differentiable().detach(), often["w"].differentiable().detach()));
      EXPECT_EQ(once["w"].split(), frozen == FrozenRows::bf16);
    }
  }
}

TEST_F(FrozenBf16, RowsAreRoundedToTheNearestAndKeptExactWhereTheyAreOwned) {
  const ParamSpec spec{.name = "w", .shape = {7, 19}};
  ParamStore store({spec}, at::kFloat, FrozenRows::bf16);
  Parameter& w = store["w"];
  store.set_trainable({{"w", {{1, 3}, {5, 6}}}});
  const at::Tensor values = random_values(spec, 1);
  values[0][0] = 1 + std::ldexp(1.0, -8);  // ties go to even numbers: down to 1 ...
  values[0][1] = 1 + std::ldexp(3.0, -8);  // ... and up to 1 + 2^-6
  w.write(values.const_data_ptr<float>());
  ASSERT_EQ(w.halves.size(), 3u);
  const at::Tensor nearest = values.to(at::kBFloat16);
  EXPECT_EQ(w.halves[0].value[0][0].item<double>(), 1);
  EXPECT_EQ(w.halves[0].value[0][1].item<double>(), 1 + std::ldexp(1.0, -6));
  for (const HalfRows& half : w.halves)
    EXPECT_TRUE(half.value.equal(nearest.narrow(0, half.rows.begin, half.rows.count())));
  for (const Leaf& leaf : w.leaves)
    EXPECT_TRUE(same_bits(leaf.value, values.narrow(0, leaf.rows.begin, leaf.rows.count())));
  // What is divided in another way keeps its values, as exact as they were; what stays, its memory.
  const void* const kept = w.leaves[1].value.const_data_ptr();
  store.set_trainable({{"w", {{2, 4}, {5, 6}}}});
  EXPECT_EQ(w.leaves[1].value.const_data_ptr(), kept);
  EXPECT_TRUE(same_bits(w.leaves[0].value[0], values[2]));
  EXPECT_TRUE(same_bits(w.leaves[0].value[1], nearest[3].to(at::kFloat)));
  EXPECT_TRUE(w.differentiable().to(at::kBFloat16).equal(nearest));
}

TEST_F(FrozenBf16DeathTest, AChangeBetweenForwardAndBackwardIsNoticed) {
  Twins twins(models[0], 1);
  const at::Tensor loss = twins.split.loss(batch_of(5));
  for (auto& [name, parameter] : twins.split.params.all()) {
    for (Leaf& leaf : parameter.leaves) leaf.value.detach().add_(1);
  }
  EXPECT_DEATH(loss.backward(), "version");
}

}  // namespace
}  // namespace tessera
