// What outer.lr = "auto" makes of a merge: signals against their definitions, rates at their limits.
#include "optim/outer_gain.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"
#include "tests/optim/chosen_method.h"

namespace tessera {
namespace {

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

TEST(OuterGain, SignalsAreTheCosinesThatTheySay) {
  const std::size_t size = 500;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    const int slots = 4;
    std::vector<std::vector<double>> deltas(slots, std::vector<double>(size));
    std::vector<double> mean(size), common(size);
    std::vector<float> momentum(size);
    for (double& c : common) c = random.normal();
    for (std::size_t i = 0; i < size; ++i) momentum[i] = static_cast<float>(common[i] + random.normal());
    double squares = 0;
    for (auto& delta : deltas) {
      for (std::size_t i = 0; i < size; ++i) {
        delta[i] = common[i] + random.normal();
        mean[i] += delta[i] / slots;
      }
      squares += dot(delta, delta);
    }
    const std::vector<Update> updates{
        {.delta = mean, .state = {momentum}, .owners = slots, .squares = squares}};
    const OuterSignals signals = signals_of(updates);
    double products = 0;
    for (int a = 0; a < slots; ++a) {
      for (int b = 0; b < slots; ++b) products += a == b ? 0 : dot(deltas[a], deltas[b]);
    }
    EXPECT_NEAR(signals.agreement, products / (slots - 1) / squares, 1e-9);
    const std::vector<double> m(momentum.begin(), momentum.end());
    EXPECT_NEAR(signals.persistence, dot(m, mean) / std::sqrt(dot(m, m) * dot(mean, mean)), 1e-9);
    EXPECT_NEAR(signals.carried, dot(m, mean) / dot(mean, mean), 1e-9);
  }
}

TEST(OuterGain, ProductsThatCameWithADeltaAreTakenAndThoseOfAnotherAreNot) {
  const ParamSpec spec{"w", {2}};
  const std::vector<double> delta{3, -1};
  std::vector<float> theta{0, 0}, momentum{2, 5}, drift{1, 1};
  const DeltaProducts right{.squares = 10, .with_momentum = 1, .momentum_squares = 29};
  const DeltaProducts wrong{.squares = 1, .with_momentum = 1, .momentum_squares = 1};
  Update update{.spec = &spec, .rows = {0, 2}, .theta = theta, .delta = delta, .state = {momentum}};
  const double persistence = 1 / std::sqrt(290.0);
  for (const auto& [products, expected] :
       {std::pair{std::optional<DeltaProducts>(), persistence}, {right, persistence}, {wrong, 1.0}}) {
    update.products = products;
    EXPECT_DOUBLE_EQ(signals_of(std::span(&update, 1)).persistence, expected);
    EXPECT_EQ(signals_of(std::span(&update, 1), true).persistence, 0) << "it begins anew";
  }
  // sparta steps along another delta (the drift is in it) than the merged one.
  const auto sparta = chosen_method("sparta", {.numbers = {{"share", 0.5}, {"diloco_every", 2}}},
                                    {.specs = {spec}, .lr = 0.5, .momentum = 0.9});
  update.state = {momentum, drift};
  update.products = right;
  // Without its drift of 1 the delta is (2, -2).
  EXPECT_DOUBLE_EQ(sparta->apply(2, std::span(&update, 1)).persistence, -6 / std::sqrt(29.0 * 8));
}

TEST(OuterGain, TheWholeStepAlongTheMergedDeltaIsTheSameWithAnyMomentum) {
  // Steps 30 times with a delta that never changes, and measures how far the last step went.
  for (const double momentum : {0.0, 0.5, 0.9}) {
    const auto rule = make_outer_rule("nesterov", momentum);
    std::vector<float> theta{0}, buffer{0};
    const std::vector<double> delta{-1};
    float before = 0;
    for (int step = 0; step < 200; ++step) {
      std::vector<Update> updates{{.delta = delta, .state = {buffer}, .owners = 2, .squares = 2}};
      if (rule->state_names().empty()) updates[0].state.clear();
      before = theta[0];
      rule->apply(shared_gain(signals_of(updates), momentum, 1), theta, delta, updates[0].state);
    }
    EXPECT_NEAR(theta[0] - before, 1.3, 1e-3) << "momentum " << momentum;
  }
}

TEST(OuterGain, FallsAsFewerSlotsStandBehindASlice) {
  const auto gain = [](double owners, std::int32_t slots, double agreement, std::int32_t slices = 1) {
    OuterSignals signals;
    signals.cut_owners = owners;
    signals.agreement = agreement;
    return cut_gain(signals, 0, slots, slices);
  };
  EXPECT_DOUBLE_EQ(gain(8, 8, 0.4), 1.3) << "all slots: as what is shared";
  EXPECT_DOUBLE_EQ(gain(1, 8, 1), 1.3) << "slots that agree: one says what all say";
  EXPECT_DOUBLE_EQ(gain(1, 8, 0), 1.3 / 8) << "nothing in common: as if the others had not moved";
  EXPECT_DOUBLE_EQ(gain(4, 8, 0.5), 1.3 * 0.5 * 4.5 / 2.5);
  EXPECT_DOUBLE_EQ(gain(1, 4, 0.5), 1.3 * 0.25 * 2.5);
  EXPECT_DOUBLE_EQ(cut_gain({.has_agreement = false, .cut_owners = 1}, 0, 8, 4), 0.5)
      << "nothing shared says how noisy they are: only the slices count";
  EXPECT_DOUBLE_EQ(gain(4, 8, 1, 2), 1.3) << "two slices do not yet overshoot";
  EXPECT_DOUBLE_EQ(gain(1, 8, 1, 8), 0.25) << "eight do, and then even the mean is not overshot";
}

TEST(OuterGain, SlicesJumpShortAndReachTheMeanInTheEnd) {
  // N slices that agree bring the same delta again and again. The first step goes 2 / N of it, so that all of
  // them together go twice as far as one; later steps go the whole delta.
  for (const std::int32_t slices : {2, 3, 4, 8, 64}) {
    SCOPED_TRACE(std::to_string(slices) + " slices");
    const OuterSignals signals{.agreement = 1};
    const double momentum = cut_momentum(slices, 0);
    const double lr = cut_gain(signals, momentum, slices, slices), end = slices > 2 ? 1 : 1.3;
    const auto rule = make_outer_rule("nesterov", momentum);
    std::vector<float> theta{0}, buffer{0};
    std::vector<std::span<float>> state{buffer};
    if (rule->state_names().empty()) state.clear();
    float before = 0;
    for (int step = 0; step < 1000; ++step) {
      before = theta[0];
      rule->apply(lr, theta, std::vector<double>{-1}, state);
      if (step == 0) {
        EXPECT_NEAR(theta[0], end * 2 / slices, 1e-5);
      }
    }
    EXPECT_NEAR(theta[0] - before, end, 1e-3);
  }
  EXPECT_EQ(cut_momentum(2, 0.5), 0.5) << "no less than what is shared";
}

TEST(OuterGain, NoMomentumMakesSlicesGoFurtherThanTheMean) {
  const OuterSignals signals{.agreement = 1};
  EXPECT_DOUBLE_EQ(cut_gain(signals, 0.9, 8, 8), 1 - 0.9) << "more memory than needed: the end is the limit";
  EXPECT_DOUBLE_EQ(cut_gain(signals, 0.5, 8, 8), 0.25 / 1.5) << "less: the jump is";
}

TEST(OuterGain, NothingButCutCoordinatesOrZerosGiveFiniteRates) {
  const std::vector<double> zero{0, 0};
  const std::vector<Update> cut{{.delta = zero, .cut = true}}, still{{.delta = zero, .owners = 2}};
  for (const auto& updates : {cut, still}) {
    const OuterSignals signals = signals_of(updates);
    EXPECT_EQ(signals.agreement, 0);
    EXPECT_DOUBLE_EQ(shared_gain(signals, 0.5, 1), 1.3 / 1.5);
    EXPECT_DOUBLE_EQ(shared_gain(signals, 0.5, 4), 1 / 1.5) << "slices overshoot enough by themselves";
    EXPECT_TRUE(std::isfinite(cut_gain(signals, 0, 4, 2)));
  }
}

}  // namespace
}  // namespace tessera
