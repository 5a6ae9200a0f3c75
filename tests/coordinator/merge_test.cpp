// The arithmetic of merges: golden vectors, and the invariants of reference/partial-updates-and-diloco.md,
// section 3.2, that the coordinator alone has to keep (their numbers stand in the test names' comments).
#include "coordinator/merge.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "coordinator/planner.h"
#include "tests/coordinator/small_model.h"

namespace tessera {
namespace {

using testing::ElementsAre;

/// A coordinator's tensors and the merger that moves them.
struct Outer {
  std::vector<ParamSpec> specs;
  Merger merger;
  TensorMap theta, state;
  std::int64_t version = 0;

  Outer(const OuterMethod::Context& context, TensorMap start, const std::string& method = "diloco")
      : specs(context.specs),
        merger(context.specs, Registry<OuterMethod>::builtin().make(method, context)),
        theta(std::move(start)),
        state(merger.initial_state()) {}
  MergeOutcome merge(const std::vector<MergeInput>& inputs) {
    return merger.merge(FragmentId{0}, Version{++version}, inputs, theta, state);
  }
};

// ---- golden vectors ----

/// y = x w + b with two inputs, mean squared error over two samples, one SGD(0.1) step; returns the loss
/// before it.
double linear_step(TensorMap& model, const float (&x)[2][2], const float (&y)[2]) {
  const std::span<float> w = model.at("w").as<float>(), b = model.at("b").as<float>();
  double loss = 0, dw[2] = {0, 0}, db = 0;
  for (int i = 0; i < 2; ++i) {
    const double error = x[i][0] * w[0] + x[i][1] * w[1] + b[0] - y[i];
    loss += error * error / 2;
    for (int j = 0; j < 2; ++j) dw[j] += error * x[i][j];
    db += error;
  }
  for (int j = 0; j < 2; ++j) w[j] -= static_cast<float>(0.1 * dw[j]);
  b[0] -= static_cast<float>(0.1 * db);
  return loss;
}

TEST(MergeGolden, TwoLinearModelsAfterThreeStepsAndOneNesterovMerge) {  // 3.3 a)
  const std::vector<ParamSpec> specs{{"w", {2}}, {"b", {1}}};
  Outer outer(context_of(specs, "nesterov", 1, 0.9), {{"w", tensor({2}, {2, 1})}, {"b", tensor({1}, {1})}});
  const float x[2][2][2] = {{{0, 1}, {1, 0}}, {{1, 0}, {0, 1}}}, y[2][2] = {{1, 2}, {2, 3}};
  const double losses[2][3] = {{1, 0.49, 0.2401}, {1, 0.81, 0.6561}};
  const float ends[2][3] = {{1.781f, 0.781f, 0.562f}, {1.729f, 1.271f, 1.0f}};
  std::vector<MergeInput> inputs;
  for (int k = 0; k < 2; ++k) {
    TensorMap local = clone_of(outer.theta);
    for (int step = 0; step < 3; ++step) EXPECT_NEAR(linear_step(local, x[k], y[k]), losses[k][step], 1e-6);
    EXPECT_NEAR(local.at("w").as<float>()[0], ends[k][0], 1e-6);
    EXPECT_NEAR(local.at("w").as<float>()[1], ends[k][1], 1e-6);
    EXPECT_NEAR(local.at("b").as<float>()[0], ends[k][2], 1e-6);
    inputs.push_back({SlotId{k}, local});
  }
  outer.merge(inputs);
  EXPECT_NEAR(outer.theta.at("w").as<float>()[0], 1.5345, 1e-6);
  EXPECT_NEAR(outer.theta.at("w").as<float>()[1], 1.0494, 1e-6);
  EXPECT_NEAR(outer.theta.at("b").as<float>()[0], 0.5839, 1e-6);
  TensorMap next = clone_of(outer.theta);
  EXPECT_NEAR(linear_step(next, x[0], y[0]), 0.20754, 1e-5);
}

TEST(MergeGolden, FourSlotsWithTwoSlicesAverageOverOwners) {  // 3.3 c)
  const std::vector<ParamSpec> specs{{"cut", {4}}, {"rest", {2}}};
  PartialSettings settings;
  settings.cut = "mlp";
  settings.slices = 2;
  const Plan plan = *make_plan(specs, {{"g", "mlp", "units", 4, {{"cut"}}}}, settings, 4);
  Outer outer(context_of(specs, "nesterov", 0.7, 0.9),
              {{"rest", tensor({2}, {1, -2})}, {"cut", tensor({4}, {0.5f, 4, -1, 8})}});
  const float gradient_rest[] = {1, 2}, gradient_cut[] = {3, 4, 5, 6};
  auto round = [&] {
    std::vector<MergeInput> inputs;
    for (std::int32_t k = 0; k < 4; ++k) {
      TensorMap end = clone_of(outer.theta);
      for (int step = 0; step < 2; ++step) {
        for (int i = 0; i < 2; ++i) end.at("rest").as<float>()[i] -= 0.25f * (k + 1) * gradient_rest[i];
        for (int i = 0; i < 4; ++i) end.at("cut").as<float>()[i] -= 0.25f * (k + 1) * gradient_cut[i];
      }
      inputs.push_back({SlotId{k}, pieces_of(end, plan.owned_by(k), specs)});
    }
    return outer.merge(inputs);
  };
  auto expect_near = [](const HostTensor& got, const std::vector<double>& want) {
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_NEAR(got.as<float>()[i], want[i], 2e-6 * std::abs(want[i])) << i;
  };
  const MergeOutcome outcome = round();
  EXPECT_EQ(outcome.updated, 6);
  EXPECT_EQ(outcome.uncovered, 0);
  EXPECT_NEAR(outcome.delta_norm, std::sqrt(1.25 * 1.25 + 2.5 * 2.5 + 9 + 16 + 7.5 * 7.5 + 81), 1e-5);
  expect_near(outer.theta.at("rest"), {-0.6625, -5.325});
  expect_near(outer.theta.at("cut"), {-3.49, -1.32, -10.975, -3.97});
  round();
  expect_near(outer.state.at("momentum/rest"), {1.9 * 1.25, 1.9 * 2.5});
  expect_near(outer.state.at("momentum/cut"), {1.9 * 3, 1.9 * 4, 1.9 * 7.5, 1.9 * 9});
  expect_near(outer.theta.at("rest"), {-3.03375, -10.0675});
  expect_near(outer.theta.at("cut"), {-9.181, -8.908, -25.2025, -21.043});
}

// ---- invariants ----

TEST(Merge, OneSlotWithPlainAveragingIsPlainTrainingBitForBit) {  // 1
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const std::vector<ParamSpec> specs{{"w", {500, 7}}};
    Outer outer(context_of(specs, "sgd", 1, 0), random_tensors(specs, seed));
    const TensorMap end = random_tensors(specs, seed + 1000, std::pow(10.0, -static_cast<double>(seed % 7)));
    const std::vector<float> start = floats(outer.theta.at("w")), want = floats(end.at("w"));
    outer.merge({{SlotId{0}, end}});
    const std::vector<float> got = floats(outer.theta.at("w"));
    for (std::size_t i = 0; i < want.size(); ++i) {
      // The difference of two floats is exact in fp64 unless one is 2^29 times the other: then the smaller
      // loses its last bits.
      if (std::abs(want[i]) * 0x1p29f > std::abs(start[i])) {
        ASSERT_EQ(got[i], want[i]) << i << " from " << start[i];
      } else {
        ASSERT_NEAR(got[i], want[i], 1e-16 * std::abs(start[i]));
      }
    }
  }
}

/// A quadratic with its own minimum and curvature per coordinate and slot, in fp64.
double gradient(std::size_t i, std::int32_t slot, double value) {
  return (1 + 0.1 * static_cast<double>(i % 5)) * (value - 0.3 * slot - 0.01 * static_cast<double>(i));
}

/// Coordinator's plain SGD for data_parallel.
class SgdStep final : public GradientStep {
 public:
  std::vector<std::string> state_names() const override { return {}; }
  void apply(std::int64_t, std::span<const Update> updates) const override {
    for (const Update& update : updates) {
      for (std::size_t i = 0; i < update.theta.size(); ++i) {
        update.theta[i] = static_cast<float>(update.theta[i] - 0.05 * update.delta[i]);
      }
    }
  }
};

TEST(Merge, OneLocalSgdStepPerMergeIsDataParallelSgd) {  // 2
  const std::vector<ParamSpec> specs{{"w", {40, 3}}};
  OuterMethod::Context parallel = context_of(specs, "sgd", 1, 0);
  parallel.gradient_step = std::make_shared<SgdStep>();
  const TensorMap start = random_tensors(specs, 5);
  Outer local(context_of(specs, "sgd", 1, 0), clone_of(start)),
      dp(parallel, clone_of(start), "data_parallel");
  for (int round = 0; round < 20; ++round) {
    std::vector<MergeInput> ends, gradients;
    for (std::int32_t slot = 0; slot < 4; ++slot) {
      TensorMap end = clone_of(local.theta), grad = clone_of(dp.theta);
      for (float& v : end.at("w").as<float>())
        v -= static_cast<float>(0.05 * gradient(&v - end.at("w").as<float>().data(), slot, v));
      for (float& v : grad.at("w").as<float>())
        v = static_cast<float>(gradient(&v - grad.at("w").as<float>().data(), slot, v));
      ends.push_back({SlotId{slot}, end});
      gradients.push_back({SlotId{slot}, grad});
    }
    local.merge(ends);
    dp.merge(gradients);
  }
  const std::vector<float> a = floats(local.theta.at("w")), b = floats(dp.theta.at("w"));
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-6 * std::max(1.0f, std::abs(b[i])));
}

TEST(Merge, AnyNumberOfIdenticalSlotsIsOneSlot) {  // 3
  for (const char* rule : {"sgd", "nesterov"}) {
    for (std::int32_t slots : {2, 3, 5, 7, 32}) {
      SCOPED_TRACE(std::string(rule) + " with " + std::to_string(slots));
      Outer one(context_of(small_specs(), rule, 0.7, 0.9), random_tensors(small_specs(), 1));
      Outer many(context_of(small_specs(), rule, 0.7, 0.9), random_tensors(small_specs(), 1));
      for (std::uint64_t round = 0; round < 3; ++round) {
        const TensorMap end = random_tensors(small_specs(), 100 + round);
        std::vector<MergeInput> inputs;
        for (std::int32_t slot = 0; slot < slots; ++slot) inputs.push_back({SlotId{slot}, end});
        one.merge({{SlotId{0}, end}});
        many.merge(inputs);
      }
      ASSERT_TRUE(bit_equal(one.theta, many.theta));
      ASSERT_TRUE(bit_equal(one.state, many.state));
    }
  }
}

TEST(Merge, OneSliceOwnedByAllIsDiLoCo) {  // 4
  const Plan cut = small_plan(1, 3);
  const Plan none = *make_plan(small_specs(), {}, PartialSettings{}, 3);
  Outer partial(context_of(small_specs(), "nesterov", 0.7, 0.9), random_tensors(small_specs(), 1));
  Outer diloco(context_of(small_specs(), "nesterov", 0.7, 0.9), random_tensors(small_specs(), 1));
  for (std::uint64_t round = 0; round < 3; ++round) {
    partial.merge(random_inputs(cut, round));
    diloco.merge(random_inputs(none, round));
  }
  EXPECT_TRUE(bit_equal(partial.theta, diloco.theta));
  EXPECT_TRUE(bit_equal(partial.state, diloco.state));
}

TEST(Merge, WithOneOfTwoOwnersAbsentTheOtherAloneIsTheMean) {  // 10
  const Plan plan = small_plan(2, 4);
  const std::vector<MergeInput> all = random_inputs(plan, 3);
  Outer outer(context_of(small_specs(), "sgd", 1, 0), random_tensors(small_specs(), 1));
  const MergeOutcome outcome = outer.merge({all[0], all[1], all[3]});  // slot 2 shares slice 0 with slot 0
  EXPECT_EQ(outcome.uncovered, 0);
  EXPECT_EQ(floats(outer.theta.at("mlp.bias").rows({0, 4})), floats(all[0].pieces.at("mlp.bias[0:4]")));
  const auto mean_of = [&](const char* piece, std::vector<int> slots, std::size_t i) {
    double sum = 0;
    for (int slot : slots) sum += all[slot].pieces.at(piece).as<float>()[i];
    return sum / static_cast<double>(slots.size());
  };
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(outer.theta.at("mlp.bias").as<float>()[4 + i], mean_of("mlp.bias[4:8]", {1, 3}, i), 1e-8);
  }
  EXPECT_NEAR(outer.theta.at("norm").as<float>()[1], mean_of("norm", {0, 1, 3}, 1), 1e-8);
}

TEST(Merge, AbsentOwnersLeaveParameterAndMomentumAlone) {  // 10
  const Plan plan = small_plan(2, 2);
  Outer outer(context_of(small_specs(), "nesterov", 0.7, 0.9), random_tensors(small_specs(), 1));
  outer.merge(random_inputs(plan, 1));  // so that there is momentum that could move
  const TensorMap theta = clone_of(outer.theta), momentum = clone_of(outer.state);
  const MergeOutcome outcome = outer.merge({random_inputs(plan, 2)[0]});
  EXPECT_EQ(outcome.uncovered, 4 * 3 + 4);
  EXPECT_EQ(outcome.updated, elements_in(plan.owned_by(0), small_specs()));
  EXPECT_THAT(outcome.uncovered_pieces, ElementsAre("mlp.up[4:8]", "mlp.bias[4:8]"));
  const Rows held{4, 8}, moved{0, 4};
  for (const char* name : {"mlp.up", "mlp.bias"}) {
    const std::string slow = std::string("momentum/") + name;
    EXPECT_EQ(floats(outer.theta.at(name).rows(held)), floats(theta.at(name).rows(held)));
    EXPECT_EQ(floats(outer.state.at(slow).rows(held)), floats(momentum.at(slow).rows(held)));
    EXPECT_NE(floats(outer.theta.at(name).rows(moved)), floats(theta.at(name).rows(moved)));
    EXPECT_NE(floats(outer.state.at(slow).rows(moved)), floats(momentum.at(slow).rows(moved)));
  }
  EXPECT_NE(floats(outer.theta.at("emb")), floats(theta.at("emb")));
}

TEST(Merge, OfNothingMovesNothing) {
  Outer outer(context_of(small_specs(), "nesterov", 0.7, 0.9), random_tensors(small_specs(), 1));
  const TensorMap theta = clone_of(outer.theta);
  EXPECT_EQ(outer.merge({}).uncovered, 5 * 3 + 8 * 3 + 8 + 3);
  EXPECT_TRUE(bit_equal(outer.theta, theta));
}

TEST(Merge, DoesNotDependOnTheOrderOfArrival) {  // 11
  const Plan plan = small_plan(4, 8);
  std::vector<MergeInput> inputs = random_inputs(plan, 9);
  Outer first(context_of(small_specs(), "nesterov", 0.7, 0.9), random_tensors(small_specs(), 1));
  first.merge(inputs);
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::shuffle(inputs.begin(), inputs.end(), KeyedRandom(seed));
    Outer shuffled(context_of(small_specs(), "nesterov", 0.7, 0.9), random_tensors(small_specs(), 1));
    shuffled.merge(inputs);
    ASSERT_TRUE(bit_equal(first.theta, shuffled.theta));
    ASSERT_TRUE(bit_equal(first.state, shuffled.state));
  }
}

TEST(Merge, AddsInSlotOrderEvenWhereTheOrderDecides) {  // 11
  // In fp64, 1e25 + 1 - 1e25 + 3 is 3 from left to right, 4 if the large ones meet first, 0 if they meet
  // last.
  const std::vector<ParamSpec> specs{{"w", {1}}};
  const float ends[] = {-1e25f, -1, 1e25f, -3};
  std::vector<int> order{0, 1, 2, 3};
  do {
    Outer outer(context_of(specs, "sgd", 1, 0), {{"w", tensor({1}, {0})}});
    std::vector<MergeInput> inputs;
    for (int slot : order) inputs.push_back({SlotId{slot}, {{"w", tensor({1}, {ends[slot]})}}});
    outer.merge(inputs);
    ASSERT_EQ(outer.theta.at("w").as<float>()[0], -3.0f / 4)
        << "slots arrived as " << testing::PrintToString(order);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(Merge, RefusesTheSameSlotTwice) {  // 11
  Outer outer(context_of(small_specs(), "sgd", 1, 0), random_tensors(small_specs(), 1));
  const MergeInput input{SlotId{3}, random_tensors(small_specs(), 2)};
  EXPECT_DEATH(outer.merge({input, input}), "slot 3 is in one merge twice");
}

TEST(Merge, BuffersBecomeThePlainMeanAndKeepNoMomentum) {
  const std::vector<ParamSpec> specs{{"w", {2}}, {"running", {2}, Role::buffer}, {"mine", {1}, Role::local}};
  Outer outer(context_of(specs, "nesterov", 0.7, 0.9),
              {{"w", tensor({2}, {0, 0})}, {"running", tensor({2}, {5, 5})}});
  EXPECT_EQ(outer.state.size(), 1u);
  RowSet owned;
  add_rows(owned, "w", {0, 2});
  EXPECT_EQ(outer.merger.expected(FragmentId{0}, owned).size(), 2u) << "w and the buffer, not what is local";
  const auto input = [](int slot, float a, float b) {
    return MergeInput{SlotId{slot}, {{"w", tensor({2}, {0, 0})}, {"running", tensor({2}, {a, b})}}};
  };
  const std::vector<MergeInput> inputs{input(0, 1, 10), input(1, 2, 20), input(2, 6, -6)};
  for (const MergeInput& one : inputs)
    EXPECT_TRUE(outer.merger.validate(FragmentId{0}, owned, one.pieces).ok());
  EXPECT_EQ(outer.merge(inputs).updated, 2);
  EXPECT_THAT(floats(outer.theta.at("running")), ElementsAre(3, 8));
  outer.merge({});
  EXPECT_THAT(floats(outer.theta.at("running")), ElementsAre(3, 8)) << "nobody reported";
}

TEST(Merge, NamesThatBeginAlikeDoNotMix) {
  const std::vector<ParamSpec> specs{{"a", {4}}, {"a.b", {4}}, {"ab", {4}}};
  Outer outer(context_of(specs, "sgd", 1, 0), random_tensors(specs, 1));
  outer.merge({{SlotId{0}, {{"a[0:2]", tensor({2}, {1, 1})}, {"a.b", tensor({4}, {2, 2, 2, 2})}}},
               {SlotId{1}, {{"a[2:4]", tensor({2}, {3, 3})}, {"ab[0:4]", tensor({4}, {4, 4, 4, 4})}}}});
  EXPECT_THAT(floats(outer.theta.at("a")), ElementsAre(1, 1, 3, 3));
  EXPECT_THAT(floats(outer.theta.at("a.b")), ElementsAre(2, 2, 2, 2));
  EXPECT_THAT(floats(outer.theta.at("ab")), ElementsAre(4, 4, 4, 4));
}

}  // namespace
}  // namespace tessera
