#include "eval/text_score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "eval/unigram.h"

namespace tessera {
namespace {

TEST(TextScore, FollowsFromSumsAsByHand) {
  // "to be" twice: 11 bytes, 4 words, 5 tokens; every byte costs one bit.
  const TextScore score{.nats = 11 * std::log(2.0), .units = 5, .bytes = 11, .words = 4};
  EXPECT_NEAR(score.bits_per_byte(), 1.0, 1e-15);
  EXPECT_NEAR(score.loss(), 1.5249237972318797, 1e-12);                // 11 ln 2 / 5
  EXPECT_NEAR(score.perplexity(), 4.5947934199881395, 1e-12);          // 2^(11/5)
  EXPECT_NEAR(score.perplexity_per_word(), 6.727171322029717, 1e-12);  // 2^(11/4)
}

TEST(TextScore, SumsDoNotCareHowTheTextWasCut) {
  TextScore whole{10, 7, 31, 5}, parts{4, 3, 20, 1};
  parts += {6, 4, 11, 4};
  EXPECT_EQ(parts.perplexity(), whole.perplexity());
  EXPECT_EQ(parts.bits_per_byte(), whole.bits_per_byte());
  EXPECT_EQ(parts.perplexity_per_word(), whole.perplexity_per_word());
}

TEST(TextScore, AUniformModelOverBytesCostsEightBitsAByte) {
  const TextScore score{.nats = 100 * std::log(256.0), .units = 100, .bytes = 100, .words = 20};
  EXPECT_NEAR(score.bits_per_byte(), 8, 1e-12);
  EXPECT_NEAR(score.perplexity(), 256, 1e-9);
}

TEST(TextScore, NothingToDivideByIsNotANumber) {
  EXPECT_TRUE(std::isnan(TextScore{}.perplexity()));
  EXPECT_TRUE(std::isnan((TextScore{.nats = 3, .units = 2}.bits_per_byte())));
  EXPECT_TRUE(std::isnan((TextScore{.nats = 3, .units = 2}.perplexity_per_word())));
}

TEST(Unigram, AddsOneToEveryCountAsByHand) {
  const UnigramBaseline baseline({3, 0, 1});  // 4 tokens, 3 kinds: p = 4/7, 1/7, 2/7
  EXPECT_NEAR(baseline.nats(0), std::log(7.0 / 4), 1e-15);
  EXPECT_NEAR(baseline.nats(1), std::log(7.0), 1e-15);
  EXPECT_NEAR(baseline.nats(2), std::log(7.0 / 2), 1e-15);
  const std::vector<std::int64_t> held_out{0, 0, 1};
  EXPECT_NEAR(baseline.nats(held_out), std::log(7.0 / 4 * 7 / 4 * 7), 1e-14);
}

TEST(Unigram, ProbabilitiesAddUpToOne) {
  const UnigramBaseline baseline({0, 12, 3, 3, 100000, 0, 7});
  double sum = 0;
  for (std::int64_t token = 0; token < 7; ++token) sum += std::exp(-baseline.nats(token));
  EXPECT_NEAR(sum, 1, 1e-12);
}

}  // namespace
}  // namespace tessera
