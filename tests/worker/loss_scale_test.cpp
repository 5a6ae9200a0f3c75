// Steps with gradients in (emulated) fp16 and a scaled loss.
#include <thread>

#include "comm/collective/inproc.h"
#include "tests/worker/step_fixture.h"

namespace tessera {
namespace {

using namespace testing;

Json model(const char* precision) {
  return {{"width", 32},      {"layers", 2},           {"heads", 2}, {"context", 16}, {"bias", true},
          {"block", "plain"}, {"precision", precision}};
}

struct Scaled {
  explicit Scaled(double initial, std::int64_t growth = 2000, const char* precision = "fp16",
                  Collective* ranks = nullptr)
      : s(model(precision), "mlp", 2, 2),
        trainer({s.replica, *s.objective, s.rate, s.data, ranks},
                {.seed = 5, .batch = 2, .clip = {.mode = ClipSettings::Mode::local, .max_norm = 1.0}}),
        run(s.make_run(s.plan.owned_by(0))) {
    settings.initial = initial;
    settings.growth = growth;
    if (s.family->scales_loss()) run.loss_scale = LossScale(settings);
    s.replica.activate(run);
  }
  void step() { ASSERT_TRUE(trainer.step(run).ok()); }
  TensorMap state() const { return run.state({.step = run.step, .adopted = {{0}}, .pushed = {{0}}}); }
  LossScaleSettings settings;
  Stepping s;
  Trainer trainer;
  SlotRun run;
};

/// A state without what is to change in a step that is left out.
TensorMap moments(TensorMap state) {
  std::erase_if(state, [](const auto& tensor) { return !tensor.first.starts_with("inner/"); });
  return state;
}

TEST(LossScaleSteps, AnOverflowLeavesParametersMomentsAndTheCountOfUpdatesUntouched) {
  Scaled at(1 << 10);
  at.step();
  ASSERT_EQ(at.run.updates(), 1);
  const TensorMap values = at.s.replica.own_values(), before = moments(at.state());
  at.run.loss_scale->load({30, 7, 0});  // 2^30: gradients beyond 65504
  at.step();
  EXPECT_EQ(at.run.loss_scale->state(), (std::vector<std::int64_t>{29, 0, 1}));
  EXPECT_TRUE(bit_equal(at.s.replica.own_values(), values));
  EXPECT_TRUE(bit_equal(moments(at.state()), before));
  EXPECT_EQ(at.run.updates(), 1);
  EXPECT_EQ(at.run.step, 2) << "the data goes on";
  EXPECT_EQ(at.run.work.steps, 2u);
  EXPECT_TRUE(std::isfinite(at.run.work.grad_norm));
  // It finds a scale by itself, and from there on steps count again.
  while (at.run.updates() == 1 && at.run.step < 40) at.step();
  EXPECT_EQ(at.run.updates(), 2);
  EXPECT_FALSE(bit_equal(at.s.replica.own_values(), values));
}

TEST(LossScaleSteps, TheScaleGrowsAfterGoodStepsAndIsPartOfTheState) {
  Scaled through(256, 3), saved(256, 3);
  for (int i = 0; i < 8; ++i) {
    through.step();
    saved.step();
    SlotRun next = saved.s.make_run(saved.run.owned);
    next.loss_scale = LossScale(saved.settings);
    const TensorMap values = saved.s.replica.own_values();
    ASSERT_TRUE(next.load(saved.state()).ok());
    next.parked = values;
    saved.s.replica.release(saved.run);
    saved.run = std::move(next);
  }
  EXPECT_EQ(through.run.loss_scale->value(), 1024);
  EXPECT_TRUE(bit_equal(saved.state(), through.state()));
  EXPECT_TRUE(bit_equal(saved.s.replica.own_values(), through.s.replica.own_values()));
  TensorMap without = through.state();
  without.erase("slot/loss_scale");
  EXPECT_FALSE(saved.run.load(without).ok());
}

/// Relative distance of two slots' own values, from where they started.
double apart(const TensorMap& a, const TensorMap& b, const TensorMap& start) {
  double difference = 0, way = 0;
  for (const auto& [name, tensor] : a) {
    const auto x = tensor.as<float>(), y = b.at(name).as<float>(), from = start.at(name).as<float>();
    for (std::size_t i = 0; i < x.size(); ++i) {
      difference += std::pow(static_cast<double>(x[i]) - y[i], 2);
      way += std::pow(static_cast<double>(y[i]) - from[i], 2);
    }
  }
  return std::sqrt(difference / way);
}

/// SGD, so that tiny gradients matter as they are: Adam would blow up their rounding.
TEST(LossScaleSteps, TwentyStepsInFp16StayWithinTwoPercentOfFp32) {
  const auto trained = [](Scaled& at) {
    at.run.inner = make_plugin<InnerOptimizer>("sgd", {{"lr", 0.05}});
    for (int i = 0; i < 20; ++i) at.step();
    return at.s.replica.own_values();
  };
  Scaled half(32768), full(1, 1, "fp32");
  const TensorMap start = full.s.replica.own_values();
  const TensorMap exact = trained(full), rounded = trained(half);
  EXPECT_EQ(half.run.loss_scale->skipped(), 0);
  const double distance = apart(rounded, exact, start);
  std::printf("fp16 with a scaled loss: %.4f %% of the way off\n", 100 * distance);
  EXPECT_LT(distance, 0.02);
  EXPECT_GT(distance, 1e-6) << "nothing was rounded";
}

/// Gradients that fp16 cannot hold (below 6e-8) without a scale: a loss that is tiny by itself.
TEST(LossScaleSteps, ScalingKeepsGradientsThatFp16AloneLoses) {
  const auto gradients = [](const char* precision, double scale) {
    Stepping s(model(precision), "none", 1, 2);
    TensorMap own;
    s.with_slot(s.everything(), 0, [&](SlotRun&) {
      const Batch batch = s.batch(0);
      s.loss(torch_views(batch.tensors)).mul(1e-6 * scale).backward();
      own = s.replica.own_gradients();
    });
    for (auto& [name, tensor] : own) {
      for (float& x : tensor.as<float>()) x /= static_cast<float>(scale);
    }
    return own;
  };
  const TensorMap exact = gradients("fp32", 1);
  TensorMap zero;
  for (const auto& [name, tensor] : exact) zero.emplace(name, HostTensor::zeros(DType::f32, tensor.shape));
  EXPECT_LT(apart(gradients("fp16", 32768), exact, zero), 0.01);
  EXPECT_GT(apart(gradients("fp16", 1), exact, zero), 0.3);
}

TEST(LossScaleSteps, RanksAgreeThatAStepIsLeftOut) {
  auto group = make_inproc_group(2);
  std::vector<std::vector<std::int64_t>> states(2);
  std::vector<std::int64_t> updates(2);
  std::vector<std::thread> ranks;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      prepare_numerics(1);
      Scaled at(256, 2000, "fp16", group[rank].get());
      at.step();
      // The gradients of one rank overflow.
      if (rank == 1) at.run.loss_scale->load({30, 1, 0});
      const TensorMap before = at.s.replica.own_values();
      at.step();
      EXPECT_TRUE(bit_equal(at.s.replica.own_values(), before)) << "rank " << rank;
      states[rank] = at.run.loss_scale->state();
      updates[rank] = at.run.updates();
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(states[0], (std::vector<std::int64_t>{7, 0, 1}));
  EXPECT_EQ(states[1], (std::vector<std::int64_t>{29, 0, 1}));
  EXPECT_EQ(updates, (std::vector<std::int64_t>{1, 1}));
}

TEST(LossScaleSteps, OverflowAtTheLeastScaleEndsWithTheSlotAndStep) {
  Scaled at(1);
  at.settings.initial = at.settings.least = 1 << 30;
  at.run.loss_scale = LossScale(at.settings);
  const Status status = at.trainer.step(at.run);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("at its step 0"), std::string::npos) << status.error().message;
}

}  // namespace
}  // namespace tessera
