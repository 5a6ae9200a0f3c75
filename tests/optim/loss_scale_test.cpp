// Decisions of the loss scale along scripted overflows, as torch.amp.GradScaler (2.11: init_scale 2^15,
// growth_factor 2, backoff_factor 0.5) takes them.
#include "optim/loss_scale.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

LossScaleSettings settings(double initial, std::int64_t growth, double least = 1.0 / 8192) {
  LossScaleSettings s;
  s.initial = initial;
  s.growth = growth;
  s.least = least;
  return s;
}

TEST(LossScale, DoublesAfterGoodStepsInARowAndHalvesAtAnOverflow) {
  LossScale scale(settings(32768, 3));
  // o: overflow, g: good; the scale after each.
  const std::string script = "ggogggggoogggg";
  const std::vector<double> after{32768, 32768, 16384, 16384, 16384, 32768, 32768,
                                  32768, 16384, 8192,  8192,  8192,  16384, 16384};
  for (std::size_t i = 0; i < script.size(); ++i) {
    if (script[i] == 'o') {
      EXPECT_TRUE(scale.overflow());
    } else {
      scale.good_step();
    }
    EXPECT_EQ(scale.value(), after[i]) << "after step " << i;
  }
  EXPECT_EQ(scale.skipped(), 3);
}

TEST(LossScale, ASavedOneGoesOnAsIfNothingHadHappened) {
  LossScale through(settings(64, 4)), saved(settings(64, 4));
  for (int i = 0; i < 40; ++i) {
    for (LossScale* scale : {&through, &saved}) {
      if (i % 11 == 5) {
        scale->overflow();
      } else {
        scale->good_step();
      }
    }
    LossScale next(settings(64, 4));
    ASSERT_TRUE(next.load(saved.state()));
    saved = next;
    EXPECT_EQ(saved.state(), through.state());
  }
  EXPECT_NE(through.value(), 64);
  EXPECT_EQ(through.skipped(), 4);
  for (const std::vector<std::int64_t>& wrong :
       {std::vector<std::int64_t>{}, {1, 2}, {400, 0, 0}, {5, -1, 0}, {5, 0, -1}})
    EXPECT_FALSE(saved.load(wrong));
}

TEST(LossScale, HasALeastValueAtWhichAnOverflowEndsTheRunAndAMost) {
  LossScale falls(settings(4, 2, 1));
  EXPECT_TRUE(falls.overflow());
  EXPECT_TRUE(falls.overflow());
  EXPECT_FALSE(falls.overflow());
  EXPECT_EQ(falls.value(), 1);
  LossScale rises(settings(1024, 1));
  for (int i = 0; i < 100; ++i) rises.good_step();
  EXPECT_EQ(rises.value(), 1 << 30);
}

TEST(LossScale, SettingsThatAreNoPowersOfTwoAreNamed) {
  EXPECT_TRUE(settings(32768, 1).problems().empty());
  EXPECT_EQ(settings(1000, 1).problems().size(), 1u);
  EXPECT_EQ(settings(0, 1, -1).problems().size(), 2u);
  EXPECT_EQ(settings(2, 1, 4).problems().size(), 1u);
}

}  // namespace
}  // namespace tessera
