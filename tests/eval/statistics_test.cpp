#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace tessera {
namespace {

TEST(Statistics, MeanSpreadAndMedianOfSmallSamples) {
  const std::vector<double> values{4, 1, 7};
  EXPECT_DOUBLE_EQ(mean(values), 4);
  EXPECT_DOUBLE_EQ(median(values), 4);
  EXPECT_DOUBLE_EQ(sample_sd(values), 3);
  EXPECT_DOUBLE_EQ(median(std::vector<double>{1, 2, 10, 3}), 2.5);
  EXPECT_TRUE(std::isnan(mean({})));
  EXPECT_TRUE(std::isnan(median({})));
  EXPECT_TRUE(std::isnan(sample_sd(std::vector<double>{1})));
}

// Closed forms: I_x(1, b) = 1 - (1 - x)^b, I_x(a, 1) = x^a, I_x(1/2, 1/2) = 2/pi asin(sqrt(x)), and symmetry.
TEST(Statistics, IncompleteBetaMeetsItsClosedForms) {
  for (const double x : {1e-6, 0.1, 0.37, 0.5, 0.9, 0.999}) {
    for (const double b : {0.5, 1.0, 3.0, 40.0}) {
      EXPECT_NEAR(incomplete_beta(1, b, x), 1 - std::pow(1 - x, b), 1e-14) << x << " " << b;
      EXPECT_NEAR(incomplete_beta(b, 1, x), std::pow(x, b), 1e-14) << x << " " << b;
      EXPECT_NEAR(incomplete_beta(2.5, b, x), 1 - incomplete_beta(b, 2.5, 1 - x), 1e-14) << x << " " << b;
    }
    EXPECT_NEAR(incomplete_beta(0.5, 0.5, x), 2 / M_PI * std::asin(std::sqrt(x)), 1e-14) << x;
  }
}

// With 1 and 2 degrees of freedom the distribution has closed forms; the others are printed in every table of
// the t distribution.
TEST(Statistics, StudentQuantilesAreThoseOfTheTables) {
  for (const double p : {0.001, 0.2, 0.6, 0.975, 0.9999}) {
    EXPECT_NEAR(student_quantile(p, 1) / std::tan(M_PI * (p - 0.5)), 1, 1e-11) << p;
    const double two = (2 * p - 1) / std::sqrt(2 * p * (1 - p));
    EXPECT_NEAR(student_quantile(p, 2) / two, 1, 1e-11) << p;
    EXPECT_NEAR(student_cdf(two, 2), p, 1e-13) << p;
  }
  EXPECT_NEAR(student_quantile(0.975, 2), 4.30265272974946, 1e-10);
  EXPECT_NEAR(student_quantile(0.975, 3), 3.18244630528371, 1e-10);
  EXPECT_NEAR(student_quantile(0.975, 5), 2.57058183563631, 1e-10);
  EXPECT_NEAR(student_quantile(0.975, 10), 2.22813885198627, 1e-10);
  EXPECT_NEAR(student_quantile(0.975, 30), 2.04227245630124, 1e-10);
  EXPECT_NEAR(student_quantile(0.995, 2), 9.92484320091807, 1e-9);
  EXPECT_NEAR(student_quantile(0.95, 1e7), 1.64485362695, 1e-6) << "the normal distribution's";
  EXPECT_NEAR(student_quantile(0.5, 4), 0, 1e-12);
  EXPECT_NEAR(student_quantile(0.1, 4), -student_quantile(0.9, 4), 1e-12);
}

TEST(Statistics, AnIntervalOfThreeValuesByHand) {
  // mean 2, sd 1, half width 4.302652729749 / sqrt(3)
  const MeanInterval interval = mean_interval(std::vector<double>{1, 2, 3});
  EXPECT_EQ(interval.count, 3);
  EXPECT_DOUBLE_EQ(interval.mean, 2);
  EXPECT_NEAR(interval.high - 2, 4.302652729749462 / std::sqrt(3), 1e-10);
  EXPECT_NEAR(2 - interval.low, 4.302652729749462 / std::sqrt(3), 1e-10);
  EXPECT_EQ(mean_interval(std::vector<double>{5}).high, std::numeric_limits<double>::infinity());
  EXPECT_EQ(mean_interval({}).count, 0);
}

TEST(Statistics, IntervalsHoldTheTruthAsOftenAsTheyPromise) {
  constexpr unsigned seed = 7;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(3, 2);
  constexpr int tries = 20000;
  int held = 0;
  for (int i = 0; i < tries; ++i) {
    const MeanInterval interval =
        mean_interval(std::vector<double>{normal(random), normal(random), normal(random)}, 0.9);
    held += interval.low <= 3 && 3 <= interval.high;
  }
  EXPECT_NEAR(held / static_cast<double>(tries), 0.9, 0.01);
}

TEST(Verdict, NeedsTheWholeIntervalOnOneSideOfTheMargin) {
  EXPECT_EQ(judge_at_most({0.004, -0.001, 0.009, 3}, 0.01), Verdict::holds);
  EXPECT_EQ(judge_at_most({0.004, -0.001, 0.01, 3}, 0.01), Verdict::holds);
  EXPECT_EQ(judge_at_most({0.02, 0.011, 0.03, 3}, 0.01), Verdict::fails);
  EXPECT_EQ(judge_at_most({0.02, 0.01, 0.03, 3}, 0.01), Verdict::undecided);
  EXPECT_EQ(judge_at_most({0.004, -0.02, 0.03, 3}, 0.01), Verdict::undecided);
  EXPECT_EQ(judge_at_most(mean_interval(std::vector<double>{-5}), 0.01), Verdict::undecided) << "one seed";
  EXPECT_EQ(judge_at_most(mean_interval({}), 0.01), Verdict::undecided) << "none";
  EXPECT_STREQ(word_of(Verdict::undecided), "undecided");
}

}  // namespace
}  // namespace tessera
