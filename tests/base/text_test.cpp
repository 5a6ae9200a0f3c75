// Words for people.
#include "base/text.h"

#include <gmock/gmock.h>

#include "base/random.h"

namespace tessera {
namespace {

using testing::ElementsAre;

TEST(NearestName, FindsWhatWasMeant) {
  const std::vector<std::string> known{"adam", "adamw", "sgd", "muon", "diloco"};
  EXPECT_EQ(nearest_name("adamm", known), "adam");
  EXPECT_EQ(nearest_name("admaw", known), "adamw") << "swapped letters are one mistake";
  EXPECT_EQ(nearest_name("sdg", known), "sgd");
  EXPECT_EQ(nearest_name("muon", known), "muon");
  EXPECT_EQ(nearest_name("dilco", known), "diloco");
}

TEST(NearestName, IsSilentWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("transformer", {"sgd", "adam"}), "");
  EXPECT_EQ(nearest_name("x", {}), "");
}

TEST(Text, SplitsAndJoinsBackToTheSame) {
  EXPECT_THAT(split("a.b..c", '.'), ElementsAre("a", "b", "", "c"));
  EXPECT_THAT(split("", '.'), ElementsAre(""));
  EXPECT_EQ(join(split("a.b..c.", '.'), "."), "a.b..c.");
  EXPECT_EQ(join({}, ", "), "");
}

TEST(Text, FormatsSizesCountsAndDurations) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(3.0 * 1024 * 1024 * 1024), "3 GiB");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1234567), "1.23 M");
  EXPECT_EQ(format_duration(1.25), "1.2 s");
  EXPECT_EQ(format_duration(59.4), "59 s");
  EXPECT_EQ(format_duration(75), "1 min 15 s");
  EXPECT_EQ(format_duration(3600 + 61), "1 h 01 min");
}

TEST(Text, DurationsNeverShowSixtySeconds) {
  EXPECT_EQ(format_duration(9.99), "10 s");
  EXPECT_EQ(format_duration(59.9), "1 min 00 s");
  EXPECT_EQ(format_duration(3599.9), "1 h 00 min");
}

TEST(Text, DoublesReadBackAsTheyWere) {
  EXPECT_EQ(format_double(0.7), "0.7");
  EXPECT_EQ(format_double(1e-8), "1e-08");
  EXPECT_EQ(format_double(100), "100");
  KeyedRandom random(1);
  for (int i = 0; i < 1000; ++i) {
    const double value = random.normal() * (i % 2 ? 1e-12 : 1e12);
    EXPECT_EQ(std::stod(format_double(value)), value);
  }
}

TEST(Glob, MatchesLikeAShell) {
  EXPECT_TRUE(glob_matches("blocks.?.mlp", "blocks.3.mlp"));
  EXPECT_TRUE(glob_matches("blocks.[0-2]", "blocks.1"));
  EXPECT_FALSE(glob_matches("blocks.[0-2]", "blocks.3"));
  EXPECT_FALSE(glob_matches("blocks.?.mlp", "blocks.31.mlp"));
}

}  // namespace
}  // namespace tessera
