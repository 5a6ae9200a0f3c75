#include "base/finite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace tessera {
namespace {

constexpr float largest = std::numeric_limits<float>::max();

TEST(AllFinite, FindsWhatIsNotWhereverItStands) {
  for (const std::size_t count : {1u, 3u, 16u, 67u}) {
    std::vector<float> values(count, -largest);
    const Bytes bytes = std::as_bytes(std::span(values));
    EXPECT_TRUE(all_finite(bytes));
    for (const float bad : {INFINITY, -INFINITY, NAN, -NAN}) {
      for (float& value : values) {
        value = bad;
        EXPECT_FALSE(all_finite(bytes)) << bad << " at " << &value - values.data() << " of " << count;
        value = largest;
      }
    }
  }
  EXPECT_TRUE(all_finite({}));
}

TEST(AllFinite, LooksAtWholeNumbersFromTheFirstByteOn) {
  std::vector<float> values(20, std::numeric_limits<float>::denorm_min());
  values.back() = NAN;
  const Bytes bytes = std::as_bytes(std::span(values));
  EXPECT_TRUE(all_finite(bytes.first(bytes.size() - 1))) << "three bytes are no number";
  std::vector<std::byte> moved(bytes.size() + 1);
  std::ranges::copy(bytes, moved.begin() + 1);
  EXPECT_FALSE(all_finite(Bytes(moved).subspan(1)));
  EXPECT_TRUE(all_finite(Bytes(moved).first(bytes.size() - 4)));
}

}  // namespace
}  // namespace tessera
