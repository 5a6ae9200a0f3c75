#include "eval/sampler.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/random.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

SamplerSettings settings(double temperature, std::int64_t top_k, double top_p) {
  SamplerSettings made;
  made.temperature = temperature;
  made.top_k = top_k;
  made.top_p = top_p;
  return made;
}

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3));
  return logits;
}

std::vector<std::int32_t> tokens(const std::vector<Candidate>& row) {
  std::vector<std::int32_t> ids;
  for (const Candidate& candidate : row) ids.push_back(candidate.token);
  return ids;
}

const std::vector<double> five{0.1, 0.4, 0.05, 0.25, 0.2};

TEST(Sampler, DrawsFollowTheDistribution) {
  const auto logits = logs(five);
  constexpr int draws = 40000;
  std::map<std::int32_t, int> seen;
  for (std::uint64_t i = 0; i < draws; ++i) ++seen[*sample_token(logits, settings(1, 0, 1), key_of({11, i}))];
  double chi_square = 0;
  for (int token = 0; token < 5; ++token) {
    const double expected = draws * five[static_cast<std::size_t>(token)];
    chi_square += (seen[token] - expected) * (seen[token] - expected) / expected;
  }
  EXPECT_LT(chi_square, 18.5) << "seed 11; 4 degrees of freedom, p = 0.001";
}

TEST(Sampler, TheKeyDecides) {
  const auto logits = logs(five);
  std::map<std::int32_t, int> seen;
  for (std::uint64_t key = 0; key < 50; ++key) {
    const auto token = *sample_token(logits, settings(1, 0, 1), key_of({key}));
    EXPECT_EQ(*sample_token(logits, settings(1, 0, 1), key_of({key})), token);
    ++seen[token];
  }
  EXPECT_GT(seen.size(), 2u);
}

TEST(Sampler, TemperatureSharpensAndFlattensAsByHand) {
  const std::vector<float> logits{0, static_cast<float>(std::log(4.0))};
  EXPECT_NEAR(candidates(logits, settings(1, 0, 1))->front().probability, 4.0 / 5, 1e-6);
  EXPECT_NEAR(candidates(logits, settings(0.5, 0, 1))->front().probability, 16.0 / 17, 1e-6);
  EXPECT_NEAR(candidates(logits, settings(2, 0, 1))->front().probability, 2.0 / 3, 1e-6);
}

TEST(Sampler, TopKAndTopPKeepTheLikeliest) {
  const auto logits = logs(five);
  EXPECT_EQ(tokens(*candidates(logits, settings(1, 0, 1))), (std::vector<std::int32_t>{1, 3, 4, 0, 2}));
  const auto two = *candidates(logits, settings(1, 2, 1));
  EXPECT_EQ(tokens(two), (std::vector<std::int32_t>{1, 3}));
  EXPECT_NEAR(two[0].probability, 0.4 / 0.65, 1e-6);
  const auto nucleus = *candidates(logits, settings(1, 0, 0.64));
  EXPECT_EQ(tokens(nucleus), (std::vector<std::int32_t>{1, 3}));
  EXPECT_NEAR(nucleus[1].probability, 0.25 / 0.65, 1e-6);
  EXPECT_EQ(tokens(*candidates(logits, settings(1, 0, 0.66))), (std::vector<std::int32_t>{1, 3, 4}));
  EXPECT_EQ(tokens(*candidates(logits, settings(1, 0, 1e-9))), (std::vector<std::int32_t>{1}));
  // Top-p is measured on what top-k leaves: 0.4 of 0.65 is 0.615.
  EXPECT_EQ(tokens(*candidates(logits, settings(1, 2, 0.61))), (std::vector<std::int32_t>{1}));
  EXPECT_EQ(tokens(*candidates(logits, settings(1, 100, 1))).size(), 5u);
}

TEST(Sampler, TemperatureZeroTakesTheFirstOfTheLikeliest) {
  const std::vector<float> logits{1, 5, 2, 5};
  for (std::uint64_t key = 0; key < 20; ++key) EXPECT_EQ(*sample_token(logits, settings(0, 0, 1), key), 1);
}

TEST(Sampler, LargeLogitsDoNotOverflowAndMinusInfinityIsNever) {
  const float never = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits{never, 3e38f, -3e38f, never};
  for (std::uint64_t key = 0; key < 20; ++key) EXPECT_EQ(*sample_token(logits, settings(0.01, 0, 1), key), 1);
}

TEST(Sampler, LogitsThatAreNoNumbersAreNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinite = std::numeric_limits<float>::infinity();
  const std::vector<float> with_nan{0, nan}, with_infinity{infinite, 0}, nothing{-infinite, -infinite};
  EXPECT_THAT(candidates(with_nan, settings(1, 0, 1)).error().message, HasSubstr("token 1 is nan"));
  EXPECT_THAT(candidates(with_infinity, settings(1, 0, 1)).error().message, HasSubstr("token 0 is inf"));
  EXPECT_THAT(candidates(nothing, settings(1, 0, 1)).error().message, HasSubstr("none of the 2 logits"));
}

}  // namespace
}  // namespace tessera
