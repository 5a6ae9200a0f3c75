// Moments on their way: what is accepted, and the mean over those who bring them.
#include "coordinator/hand_over.h"

#include <gtest/gtest.h>

#include "tests/coordinator/small_model.h"

namespace tessera {
namespace {

const HandOver settings{.moments = {"a", "b"},
                        .params = {"mlp.bias"},
                        .rows = {},
                        .is_due = [](const std::string& moment, Version version) {
                          return version.value % (moment == "a" ? 2 : 3) == 0;
                        }};

TensorMap moments(Rows rows, float value) {
  const std::vector<float> values(static_cast<std::size_t>(rows.count()), value);
  TensorMap tensors;
  for (const std::string& moment : settings.moments)
    tensors.emplace(moment_name(moment, piece_name("mlp.bias", rows, 8)), tensor({rows.count()}, values));
  return tensors;
}

TEST(HandOver, TheMeanIsOverThoseWhoBroughtARowAndOthersKeepWhatTheyHad) {
  TensorMap state = initial_moments(settings, small_specs());
  ASSERT_EQ(state.size(), 2u);
  state.at("moment.b/mlp.bias").as<float>()[7] = 5;
  merge_moments(settings, {6}, {moments({0, 4}, 1), moments({2, 6}, 3)}, small_specs(), state);
  EXPECT_EQ(floats(state.at("moment.a/mlp.bias")), (std::vector<float>{1, 1, 2, 2, 3, 3, 0, 0}));
  EXPECT_EQ(floats(state.at("moment.b/mlp.bias")), (std::vector<float>{1, 1, 2, 2, 3, 3, 0, 5}));
  merge_moments(settings, {4}, {moments({0, 8}, 9)}, small_specs(), state);
  EXPECT_EQ(floats(state.at("moment.a/mlp.bias")), std::vector<float>(8, 9));
  EXPECT_EQ(state.at("moment.b/mlp.bias").as<float>()[7], 5) << "not due with version 4";
}

TEST(HandOver, AContributionBringsExactlyTheMomentsOfItsRows) {
  const std::map<std::string, RowSet> rows{{"a", {{"mlp.bias", {{2, 6}}}}}, {"b", {{"mlp.bias", {{2, 6}}}}}};
  const auto refusal = [&](const TensorMap& tensors) {
    const Status status = validate_moments(tensors, rows, small_specs());
    return status.ok() ? std::string() : status.error().message;
  };
  EXPECT_EQ(refusal(moments({2, 6}, 1)), "");
  EXPECT_EQ(refusal({}), "moment a: mlp.bias[2:6] is missing");
  EXPECT_EQ(refusal(moments({2, 7}, 1)), "moment a: mlp.bias[2:6] is missing");
  TensorMap more = moments({2, 6}, 1);
  more.emplace(moment_name("c", "mlp.bias[2:6]"), tensor({4}, {1, 2, 3, 4}));
  EXPECT_EQ(refusal(more), "moment.c/mlp.bias[2:6] is not a moment of the optimizer");
  TensorMap spoilt = moments({2, 6}, 1);
  spoilt.begin()->second.as<float>()[1] = std::numeric_limits<float>::infinity();
  EXPECT_NE(refusal(spoilt).find("is not finite"), std::string::npos);
  EXPECT_TRUE(validate_moments({}, {{"a", {}}, {"b", {}}}, small_specs()).ok()) << "in rounds without any";
  EXPECT_FALSE(validate_moments(moments({2, 6}, 1), {{"a", rows.at("a")}, {"b", {}}}, small_specs()).ok());
}

TEST(HandOver, WhatIsHandedOverIsWhatChangesOwners) {
  const PlanSchedule schedule = small_schedule(2, 4, 3);
  EXPECT_EQ(schedule.cut_parameters(), (std::vector<std::string>{"mlp.bias", "mlp.up"}));
  for (std::int64_t version = 0; version < 9; ++version) {
    const RowSet rows = schedule.handed_over({1}, {version});
    EXPECT_EQ(rows.empty(), version % 3 != 2) << version;
    if (rows.empty()) continue;
    EXPECT_EQ(rows.size(), 2u) << "nothing of what all slots share";
    EXPECT_EQ(rows.at("mlp.up"), schedule.owned({1}, {version}).at("mlp.up"));
  }
}

}  // namespace
}  // namespace tessera
