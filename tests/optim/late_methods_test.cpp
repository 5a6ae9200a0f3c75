// The arithmetic of methods whose contributions may be late: delayed Nesterov over several arrivals, what a
// late one counts, and what the methods refuse.
#include <gmock/gmock.h>
#include <tessera_plugins/outer.h>

#include <cmath>
#include <limits>

#include "base/random.h"
#include "tests/optim/chosen_method.h"

namespace tessera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const double automatic = std::numeric_limits<double>::quiet_NaN();

/// One number, and what the coordinator keeps for it.
struct Number {
  std::vector<float> theta{10};
  std::vector<std::vector<float>> state;

  void arrive(const OuterMethod& method, double g, bool cut = false) {
    state.resize((cut ? method.cut_state_names() : method.state_names()).size(), {0});
    const std::vector<double> delta{g};
    Update update{.theta = theta, .delta = delta, .state = {}, .cut = cut};
    for (auto& tensor : state) update.state.emplace_back(tensor);
    const ParamSpec spec{"w", {1}};
    update.spec = &spec;
    method.apply(1, std::span(&update, 1));
  }
};

/// beta 0.5, eps 2, N = 2, by hand. g = 4, 2, -2, 6, so D = 2, 3 | -1, 2.
/// c = 0:    theta = 10 - 4 = 6; m = 3: 6 - 2 (1.5 + 1) = 1; 1 + 2 = 3; m = 3.5: 3 - 2 (1.75 + 3) = -6.5.
/// c = 0.25: the first is 6 (no momentum yet); m = 3, 1 - cN + c = 0.75: 6 - 2 (0.75 * 1.5 + 1) = 1.75;
///           1.75 - 2 (0.25 * 1.5 - 1) = 3; m = 3.5: 3 - 2 (0.75 * 1.75 + 3) = -5.625.
TEST(Async, DelayedNesterovGivesTheNumbersWorkedOutByHand) {
  const double arrivals[] = {4, 2, -2, 6};
  const std::pair<double, std::vector<double>> cases[] = {{0.0, {6, 1, 3, -6.5}},
                                                          {0.25, {6, 1.75, 3, -5.625}}};
  for (const auto& [c, expected] : cases) {
    const auto method = chosen_method("async", {.numbers = {{"activation", c}}, .words = {}},
                                      {.lr = 2, .momentum = 0.5, .slots = 2});
    ASSERT_EQ(method->problems(), std::vector<std::string>{});
    Number number;
    for (int i = 0; i < 4; ++i) {
      number.arrive(*method, arrivals[i]);
      EXPECT_DOUBLE_EQ(static_cast<double>(number.theta[0]), expected[i]) << "c " << c << " arrival " << i;
    }
  }
}

/// The paper's statement in double precision, for any N and c; and a buffer of one is Nesterov.
TEST(Async, FollowsThePapersRecursion) {
  KeyedRandom random(20);
  for (const auto& [n, c] : {std::pair{1, 0.0}, {3, 0.0}, {4, 0.25}, {5, 0.1}}) {
    SCOPED_TRACE("N " + std::to_string(n) + " c " + std::to_string(c));
    const double beta = 0.9, eps = 0.3;
    const auto method = chosen_method("async", {.numbers = {{"activation", c}, {"buffer", n}}, .words = {}},
                                      {.lr = eps, .momentum = beta});
    Number number;
    double theta = 10, m = 0, d = 0;
    for (int t = 1; t <= 40; ++t) {
      const double g = random.normal();
      number.arrive(*method, g);
      d += g / n;
      if (t % n == 0) {
        m = beta * m + d;
        theta -= eps * ((1 - c * n + c) * beta * m + g / n);
        d = 0;
      } else {
        theta -= eps * (c * beta * m + g / n);
      }
      ASSERT_NEAR(static_cast<double>(number.theta[0]), theta, 2e-5) << "arrival " << t;
    }
    EXPECT_THAT(method->state_names(),
                n == 1 ? testing::Matcher<std::vector<std::string>>(ElementsAre("momentum"))
                       : ElementsAre("momentum", "gathered", "arrivals"));
  }
}

TEST(Async, WhatIsCutGathersItsOwnersArrivalsOnly) {
  // Four slots, two slices: of four arrivals two are of an owner.
  const auto method = chosen_method(
      "async", {}, {.lr = 1, .momentum = 0.5, .cut = OuterStep{2, 0.5}, .slots = 4, .slices = 2});
  Number number;
  for (const double g : {4, 2}) number.arrive(*method, g, true);
  EXPECT_FLOAT_EQ(number.theta[0], 1);
  // With as many slices as slots it is plain Nesterov, which gathers nothing.
  const auto single = chosen_method(
      "async", {}, {.lr = 1, .momentum = 0.5, .cut = OuterStep{2, 0.5}, .slots = 4, .slices = 4});
  EXPECT_THAT(single->cut_state_names(), ElementsAre("momentum"));
}

TEST(Async, CountsLateContributionsForLess) {
  const auto scale = [](const MethodChoice& choice, std::int64_t staleness) {
    return chosen_method("async", choice, {.lr = 1})->influence({.staleness = staleness}).scale;
  };
  EXPECT_EQ(scale({}, 7), 1);
  const MethodChoice poly{.numbers = {{"staleness_power", 0.5}, {"max_staleness", 8}},
                          .words = {{"staleness", "poly"}}};
  EXPECT_EQ(scale(poly, 0), 1);
  EXPECT_DOUBLE_EQ(scale(poly, 3), 0.5);
  EXPECT_DOUBLE_EQ(scale(poly, 8), 1.0 / 3);
  EXPECT_EQ(scale(poly, 9), 0);
}

TEST(Async, BringsWhatChangedSinceItsVersion) {
  const auto method = chosen_method("async", {}, {.lr = 1});
  std::vector<float> value{3, 4}, brought = value, committed{5, 3};
  method->push({.value = value, .brought = brought, .committed = committed, .state = {}});
  EXPECT_THAT(brought, ElementsAre(2, -1));
  EXPECT_THAT(value, ElementsAre(3, 4));
  const std::int64_t versions[] = {11};
  EXPECT_EQ(chosen_method("async", {}, {.steps = 5, .lr = 1, .slots = 4})->step_at(versions), 10);
}

TEST(Async, RefusesWhatCannotBe) {
  const auto problems = [](const MethodChoice& choice, const OuterMethod::Context& context) {
    return chosen_method("async", choice, context)->problems();
  };
  EXPECT_THAT(problems({}, {.lr = 0.7, .slots = 4}), IsEmpty());
  EXPECT_THAT(problems({}, {.lr = automatic}), ElementsAre(HasSubstr("outer.lr = \"auto\"")));
  EXPECT_THAT(problems({}, {.lr = 1, .cut = OuterStep{automatic, 0}, .slices = 2}),
              ElementsAre(HasSubstr("outer.cut_lr = \"auto\"")));
  EXPECT_THAT(problems({}, {.rule = "adam", .lr = 1}), ElementsAre(HasSubstr("outer.rule")));
  EXPECT_THAT(problems({}, {.lr = 1, .restart_every = 2, .rotates = true, .keeps_fast = true, .quorum = 2}),
              ElementsAre(HasSubstr("restart_every"), HasSubstr("fast"), HasSubstr("rotate_every"),
                          HasSubstr("sync.quorum")));
  EXPECT_THAT(problems({.numbers = {{"least_steps", 5}}, .words = {}}, {.steps = 4, .lr = 1}), IsEmpty());
  EXPECT_THAT(
      problems({.numbers = {{"least_steps", 5}, {"dynamic_steps", 1}}, .words = {}}, {.steps = 4, .lr = 1}),
      ElementsAre(HasSubstr("outer.least_steps = 5")));
  EXPECT_THAT(problems({.numbers = {{"activation", 0.5}}, .words = {}}, {.lr = 1, .slots = 4}),
              ElementsAre(HasSubstr("outer.activation = 0.5")));
}

TEST(Decoupled, WeighsByTokensAndTokensPerStep) {
  const auto weight = [](const MethodChoice& choice, const Brought& brought) {
    return chosen_method("decoupled", choice, {.specs = {{"a", {2}}, {"b", {2}}}, .steps = 4, .lr = 1})
        ->influence(brought)
        .weight;
  };
  EXPECT_EQ(weight({}, {.steps = 4, .units = 8}), 16);
  EXPECT_EQ(weight({}, {.steps = 2, .units = 8}), 32);
  EXPECT_EQ(weight({.numbers = {}, .words = {{"weights", "equal"}}}, {.steps = 2, .units = 8}), 1);
}

TEST(Decoupled, RefusesWhatCannotBe) {
  const auto problems = [](const MethodChoice& choice, OuterMethod::Context context) {
    context.specs = {{"blocks.0.w", {2}}, {"blocks.1.w", {2}}};
    context.steps = 6;
    return chosen_method("decoupled", choice, context)->problems();
  };
  EXPECT_THAT(problems({}, {.lr = 0.7, .slots = 4}), IsEmpty());
  EXPECT_THAT(problems({}, {.lr = automatic}), ElementsAre(HasSubstr("outer.lr = \"auto\"")));
  EXPECT_THAT(
      problems({.numbers = {}, .words = {{"merge", "mean"}, {"weights", "equal"}}}, {.lr = automatic}),
      IsEmpty());
  EXPECT_THAT(problems({.numbers = {{"tau", 3}}, .words = {}}, {.lr = 1}),
              ElementsAre(HasSubstr("outer.tau = 3")));
  // Two slots could wait for each of two fragments, and three contributions are asked for.
  EXPECT_THAT(problems({}, {.lr = 1, .slots = 4, .drops = true, .quorum = 3}),
              ElementsAre(HasSubstr("sync.quorum = 3")));
  for (std::int32_t quorum : {1, 2, 4})
    EXPECT_THAT(problems({}, {.lr = 1, .slots = 4, .drops = true, .quorum = quorum}), IsEmpty());
}

}  // namespace
}  // namespace tessera
