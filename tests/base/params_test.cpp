// Row sets, pieces, plans and host tensors.
#include "base/params.h"

#include <gmock/gmock.h>

#include "base/random.h"
#include "base/tensor.h"

namespace tessera {
namespace {

using testing::ElementsAre;

TEST(AddRows, KeepsRangesSortedDisjointAndJoined) {
  RowSet set;
  add_rows(set, "w", {6, 8});
  add_rows(set, "w", {0, 2});
  EXPECT_THAT(set["w"], ElementsAre(Rows{0, 2}, Rows{6, 8}));
  add_rows(set, "w", {2, 4});
  EXPECT_THAT(set["w"], ElementsAre(Rows{0, 4}, Rows{6, 8}));
  add_rows(set, "w", {3, 7});
  EXPECT_THAT(set["w"], ElementsAre(Rows{0, 8}));
  add_rows(set, "w", {1, 2});
  EXPECT_THAT(set["w"], ElementsAre(Rows{0, 8})) << "a range within";
}

TEST(AddRows, IgnoresEmptyRangesWithoutNamingTheParameter) {
  RowSet set;
  add_rows(set, "w", {3, 3});
  EXPECT_TRUE(set.empty());
}

TEST(AddRows, HoldsExactlyTheRowsThatWereAdded) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    RowSet set;
    std::vector<bool> expected(40);
    for (int i = 0; i < 12; ++i) {
      const auto begin = static_cast<std::int64_t>(random.below(40)),
                 end = begin + static_cast<std::int64_t>(random.below(41 - begin));
      add_rows(set, "w", {begin, end});
      for (std::int64_t row = begin; row < end; ++row) expected[row] = true;
    }
    std::vector<bool> held(40);
    std::int64_t last_end = -1;
    for (const Rows& rows : set["w"]) {
      ASSERT_GT(rows.begin, last_end) << "touching ranges are joined";
      ASSERT_LT(rows.begin, rows.end);
      last_end = rows.end;
      for (std::int64_t row = rows.begin; row < rows.end; ++row) held[row] = true;
    }
    ASSERT_EQ(held, expected);
  }
}

TEST(RowSet, CountsElementsByRowSize) {
  const std::vector<ParamSpec> specs{{"w", {8, 3, 2}}, {"b", {8}}, {"scale", {}}};
  RowSet set;
  add_rows(set, "w", {0, 2});
  add_rows(set, "w", {5, 6});
  add_rows(set, "b", {1, 5});
  add_rows(set, "scale", {0, 1});
  EXPECT_EQ(elements_in(set, specs), 3 * 6 + 4 + 1);
}

TEST(PieceName, IsBareOnlyForTheWholeParameter) {
  EXPECT_EQ(piece_name("a.b", {0, 8}, 8), "a.b");
  EXPECT_EQ(piece_name("a.b", {0, 4}, 8), "a.b[0:4]");
  EXPECT_EQ(piece_name("a.b", {4, 8}, 8), "a.b[4:8]");
}

TEST(Plan, GivesASlotTheRowsOfItsSlicesJoined) {
  const Plan plan{2, {{"m/units[0:2]", {{"w", {{0, 2}}}}, {0}}, {"m/units[2:4]", {{"w", {{2, 4}}}}, {0, 1}}}};
  EXPECT_THAT(plan.owned_by(0).at("w"), ElementsAre(Rows{0, 4}));
  EXPECT_THAT(plan.owned_by(1).at("w"), ElementsAre(Rows{2, 4}));
}

TEST(HostTensor, RowsShareMemoryAndClonesDoNot) {
  const HostTensor tensor = HostTensor::of<float>(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6});
  const HostTensor rows = tensor.rows({1, 3}), clone = rows.clone();
  rows.as<float>()[0] = 30;
  EXPECT_THAT(tensor.as<float>(), ElementsAre(1, 2, 30, 4, 5, 6));
  EXPECT_THAT(clone.as<float>(), ElementsAre(3, 4, 5, 6));
  EXPECT_THAT(clone.shape, ElementsAre(2, 2));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(clone.bytes().data()) % 64, 0u);
}

TEST(HostTensor, KnowsItsBugs) {
  const HostTensor tensor = HostTensor::zeros(DType::f32, {3, 2});
  EXPECT_DEATH((void)tensor.as<double>(), "with 8 and 4");
  EXPECT_DEATH((void)tensor.rows({1, 4}), "range.end <= shape");
}

TEST(BitEqual, SeesNamesShapesTypesAndBits) {
  const TensorMap a{{"w", HostTensor::of<float>(DType::f32, {2}, {0, 1})}};
  EXPECT_TRUE(bit_equal(a, {{"w", HostTensor::of<float>(DType::f32, {2}, {0, 1})}}));
  EXPECT_FALSE(bit_equal(a, {{"v", HostTensor::of<float>(DType::f32, {2}, {0, 1})}}));
  EXPECT_FALSE(bit_equal(a, {{"w", HostTensor::of<float>(DType::f32, {2, 1}, {0, 1})}}));
  EXPECT_FALSE(bit_equal(a, {{"w", HostTensor::of<float>(DType::i32, {2}, {0, 1})}}));
  EXPECT_FALSE(bit_equal(a, {{"w", HostTensor::of<float>(DType::f32, {2}, {-0.0f, 1})}}))
      << "minus zero has other bits";
  EXPECT_FALSE(bit_equal(a, {}));
  EXPECT_EQ(total_bytes(a), 8u);
}

}  // namespace
}  // namespace tessera
