// Keyed randomness: permutations are bijections, draws are uniform and a function of their key alone.
#include "base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace tessera {
namespace {

TEST(KeyedPermutation, IsABijectionForEverySizeAndKey) {
  for (std::uint64_t size :
       {1, 2, 3, 4, 5, 7, 8, 16, 17, 63, 64, 65, 100, 255, 257, 1000, 4096, 5000, 65537}) {
    for (std::uint64_t key : {0ull, 1ull, 42ull, ~0ull}) {
      SCOPED_TRACE("size " + std::to_string(size) + " key " + std::to_string(key));
      const KeyedPermutation permutation(key, size);
      std::vector<bool> seen(size);
      for (std::uint64_t i = 0; i < size; ++i) {
        const std::uint64_t to = permutation(i);
        ASSERT_LT(to, size);
        ASSERT_FALSE(seen[to]) << i << " and another both go to " << to;
        seen[to] = true;
      }
    }
  }
}

TEST(KeyedPermutation, DiffersBetweenKeysAndFromTheIdentity) {
  const std::uint64_t size = 10000;
  for (std::uint64_t key = 0; key < 20; ++key) {
    SCOPED_TRACE("key " + std::to_string(key));
    const KeyedPermutation a(key, size), b(key + 1, size);
    int same = 0, fixed = 0;
    for (std::uint64_t i = 0; i < size; ++i) {
      same += a(i) == b(i);
      fixed += a(i) == i;
    }
    EXPECT_LT(same, 12);  // one is expected of random permutations
    EXPECT_LT(fixed, 12);
  }
}

TEST(KeyedPermutation, ScattersNeighbours) {
  // Of a random permutation, the first tenth lands evenly: 100 per tenth of the range, give or take 5 sigma.
  const KeyedPermutation permutation(7, 10000);
  std::vector<int> counts(10);
  for (std::uint64_t i = 0; i < 1000; ++i) ++counts[permutation(i) / 1000];
  for (int count : counts) EXPECT_NEAR(count, 100, 48);
}

TEST(KeyedPermutation, WorksNearTheLargestSizes) {
  const std::uint64_t size = (1ull << 62) + 12345;
  const KeyedPermutation permutation(3, size);
  for (std::uint64_t i : {std::uint64_t{0}, size / 2, size - 1}) EXPECT_LT(permutation(i), size);
  EXPECT_DEATH(permutation(size), "with 46");
}

TEST(KeyOf, DependsOnEveryPartAndOnTheirOrder) {
  EXPECT_EQ(key_of({1, 2, 3}), key_of({1, 2, 3}));
  EXPECT_NE(key_of({1, 2, 3}), key_of({3, 2, 1}));
  EXPECT_NE(key_of({1, 2, 3}), key_of({1, 2, 4}));
  EXPECT_NE(key_of({1, 2}), key_of({1, 2, 0}));
  EXPECT_NE(key_of({0}), key_of({0, 0}));
}

TEST(KeyedRandom, DrawsTheSameForTheSameKey) {
  KeyedRandom a(5), b(5), c(6);
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t draw = a();
    EXPECT_EQ(draw, b());
    EXPECT_NE(draw, c());
  }
}

TEST(KeyedRandom, BelowIsUniform) {
  KeyedRandom random(11);
  const int cells = 7, draws = 70000;
  std::vector<int> counts(cells);
  for (int i = 0; i < draws; ++i) ++counts[random.below(cells)];
  double chi_squared = 0;
  for (int count : counts) chi_squared += std::pow(count - draws / cells, 2) / (draws / cells);
  EXPECT_LT(chi_squared, 27.9);  // 6 degrees of freedom: exceeded once in 10,000
}

TEST(KeyedRandom, BelowHasNoBiasForHugeBounds) {
  KeyedRandom random(12);
  const std::uint64_t bound =
      3ull << 62;  // by modulo alone, the lowest third of the range would come up half of the time
  int low = 0;
  for (int i = 0; i < 30000; ++i) low += random.below(bound) < bound / 3;
  EXPECT_NEAR(low, 10000, 5 * std::sqrt(30000 * 2.0 / 9));
}

TEST(KeyedRandom, UniformAndNormalHaveTheirMoments) {
  KeyedRandom random(13);
  const int draws = 100000;
  double uniform_sum = 0, normal_sum = 0, normal_squares = 0, normal_fourths = 0;
  for (int i = 0; i < draws; ++i) {
    const double u = random.uniform(), n = random.normal();
    ASSERT_TRUE(0 <= u && u < 1);
    uniform_sum += u;
    normal_sum += n;
    normal_squares += n * n;
    normal_fourths += n * n * n * n;
  }
  EXPECT_NEAR(uniform_sum / draws, 0.5, 5 * std::sqrt(1.0 / 12 / draws));
  EXPECT_NEAR(normal_sum / draws, 0, 5 / std::sqrt(draws));
  EXPECT_NEAR(normal_squares / draws, 1, 5 * std::sqrt(2.0 / draws));
  EXPECT_NEAR(normal_fourths / draws, 3, 5 * std::sqrt(96.0 / draws));
}

}  // namespace
}  // namespace tessera
