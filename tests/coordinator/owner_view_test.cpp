// partial.owner_view = "fast": owners keep their own values F of what is cut, everybody else sees the slow
// copy G += g (F - G). The rule, and that nothing of it is lost with workers or coordinator.
#include <gmock/gmock.h>

#include <bit>

#include "tests/comm/scratch_folder.h"
#include "tests/coordinator/rig.h"
#include "tests/coordinator/small_model.h"

namespace tessera {
namespace {

using testing::ElementsAre;

const std::vector<ParamSpec> one_weight{{"w", {2}}};

/// Both sides of a merge of one parameter with one row per slot.
struct View {
  explicit View(double gain, bool keeps_fast = true)
      : merger(one_weight,
               Registry<OuterMethod>::builtin().make(
                   "diloco", OuterMethod::Context{.specs = one_weight, .cut = OuterStep{gain, 0}}),
               MergeSettings{.cut = {"w"}, .keeps_fast = keeps_fast}),
        theta{{"w", tensor({2}, {0, 0})}},
        state(merger.initial_state(theta)) {}
  void merge(const std::vector<MergeInput>& inputs) {
    merger.merge({}, Version{++version}, inputs, theta, state);
  }
  float slow(int row) { return theta.at("w").as<float>()[row]; }
  float fast(int row) { return state.at("fast/w").as<float>()[row]; }

  Merger merger;
  TensorMap theta, state;
  std::int64_t version = 0;
};

MergeInput brings(int slot, int row, float value) {
  const std::string piece = piece_name("w", {row, row + 1}, 2);
  return {SlotId{slot}, {{piece, tensor({1}, {value})}}};
}

TEST(OwnerView, TheSlowCopyFollowsAndTheOwnerStaysWhereItIs) {
  View view(0.5);
  const float slow[] = {0.5f, 0.75f, 0.875f};
  for (const float expected : slow) {
    view.merge({brings(0, 0, 1)});
    EXPECT_EQ(view.slow(0), expected);
    EXPECT_EQ(view.fast(0), 1);
  }
  EXPECT_EQ(view.slow(1), 0) << "nobody trained it";
  EXPECT_EQ(view.fast(1), 0);
}

TEST(OwnerView, SeveralOwnersGoOnFromTheirMean) {
  View view(0.25);
  view.merge({brings(0, 0, 1), brings(2, 0, 3), brings(1, 1, 5)});
  EXPECT_EQ(view.fast(0), 2);
  EXPECT_EQ(view.slow(0), 0.5f);
  view.merge({brings(2, 0, 4)});  // slot 0 and the owner of the other row are away
  EXPECT_EQ(view.fast(0), 4);
  EXPECT_EQ(view.slow(0), 0.5f + 0.25f * 3.5f);
  EXPECT_EQ(view.fast(1), 5) << "held";
  EXPECT_EQ(view.slow(1), 1.25f) << "held";
}

TEST(OwnerView, ASingleOwnersBitsAreKeptHoweverSmallTheValue) {
  View view(0.5);
  view.theta.at("w").as<float>()[0] = 0.02f;
  for (const float end : {1e-11f, -3e-20f, -0.0f}) {  // 0.02 - (0.02 - end) would round
    view.merge({brings(0, 0, end)});
    EXPECT_EQ(std::bit_cast<std::uint32_t>(view.fast(0)), std::bit_cast<std::uint32_t>(end)) << end;
  }
}

TEST(OwnerView, AtGainOneIsTheResetViewBitForBit) {
  View fast(1), reset(1, false);
  KeyedRandom random(7);
  for (int round = 0; round < 50; ++round) {
    std::vector<MergeInput> inputs;
    for (int row = 0; row < 2; ++row) inputs.push_back(brings(row, row, static_cast<float>(random.normal())));
    fast.merge(inputs);
    reset.merge(inputs);
    for (int row = 0; row < 2; ++row) {
      ASSERT_EQ(fast.slow(row), reset.slow(row));
      ASSERT_EQ(fast.fast(row), fast.slow(row));
    }
  }
}

TEST(OwnerView, AveragingOverAllSlotsShrinksTheStepOfWhatFewOwn) {
  Merger merger(one_weight,
                Registry<OuterMethod>::builtin().make(
                    "diloco", OuterMethod::Context{.specs = one_weight, .lr = 1, .momentum = 0}),
                MergeSettings{.cut = {"w"}, .average_over = 4});
  TensorMap theta{{"w", tensor({2}, {0, 0})}}, state;
  merger.merge({}, Version{1}, {brings(0, 0, 4), brings(2, 0, 8), brings(1, 1, 4)}, theta, state);
  EXPECT_THAT(floats(theta.at("w")), ElementsAre(3, 1));
}

/// The undisturbed run.
std::vector<std::string> undisturbed(RigOptions options) {
  ScratchFolder folder;
  Rig rig(1, folder.path(), options);
  EXPECT_TRUE(rig.finish());
  return rig.story();
}

/// One owner per slice, two, and owners that change every round.
class OwnerViewRuns : public testing::TestWithParam<RigOptions> {};

TEST_P(OwnerViewRuns, WorkersDieAndTheirSlotsGoOnFromTheFastValues) {
  const std::vector<std::string> story = undisturbed(GetParam());
  RigOptions reset = GetParam();
  reset.keeps_fast = false;
  EXPECT_NE(story, undisturbed(reset)) << "the view makes a difference";
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    ScratchFolder folder;
    Rig rig(2, folder.path(), GetParam());
    ASSERT_TRUE(rig.finish_while_workers_die(random));
    EXPECT_EQ(rig.story(), story);
  }
}

TEST_P(OwnerViewRuns, TheCoordinatorDiesAndComesBackWithBothCopies) {
  const std::vector<std::string> story = undisturbed(GetParam());
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    ScratchFolder folder;
    Rig rig(2, folder.path(), GetParam());
    ASSERT_TRUE(rig.finish_while_the_coordinator_dies(random));
    EXPECT_EQ(rig.story(), story);
  }
}

INSTANTIATE_TEST_SUITE_P(OneOwnerTwoAndChanging, OwnerViewRuns,
                         testing::Values(RigOptions{.slices = 4, .keeps_fast = true},
                                         RigOptions{.slices = 2, .keeps_fast = true},
                                         RigOptions{.slices = 4, .keeps_fast = true, .rotate_every = 1}));

}  // namespace
}  // namespace tessera
