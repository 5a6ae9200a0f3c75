// Plans: names, owners, coverage, and the sentences for what cannot be planned.
#include "coordinator/planner.h"

#include <gmock/gmock.h>

#include "base/random.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

struct Model {
  std::vector<ParamSpec> specs;
  std::vector<CutGroup> cuts;
};

/// Blocks as a family declares them: an MLP with a bias, and attention with q, k, v in one tensor.
Model model_of(int blocks, std::int64_t hidden, std::int64_t heads) {
  Model model;
  model.specs.push_back({"embedding", {11, 6}});
  CutGroup layers{"blocks", "layer", "layers", blocks, {}};
  for (int i = 0; i < blocks; ++i) {
    const std::string block = "blocks." + std::to_string(i) + ".";
    model.specs.push_back({block + "norm", {6}});
    model.specs.push_back({block + "attention.qkv", {3 * heads * 2, 6}});
    model.specs.push_back({block + "attention.out", {heads * 2, 6}});
    model.specs.push_back({block + "mlp.up", {hidden, 6}});
    model.specs.push_back({block + "mlp.up_bias", {hidden}});
    model.specs.push_back({block + "mlp.down", {hidden, 6}});
    for (const ParamSpec& spec : model.specs) {
      if (spec.name.starts_with(block)) layers.members.push_back({spec.name, spec.rows(), 0, i});
    }
    model.specs.push_back({block + "mean", {6}, Role::buffer});
    model.cuts.push_back({block + "attention",
                          "heads",
                          "groups",
                          heads,
                          {{block + "attention.qkv", 2, 0},
                           {block + "attention.qkv", 2, 2 * heads},
                           {block + "attention.qkv", 2, 4 * heads},
                           {block + "attention.out", 2, 0}}});
    model.cuts.push_back({block + "mlp",
                          "mlp",
                          "units",
                          hidden,
                          {{block + "mlp.up"}, {block + "mlp.up_bias"}, {block + "mlp.down"}}});
  }
  model.cuts.push_back(layers);
  return model;
}

PartialSettings partial(const std::string& cut, std::int64_t slices) {
  PartialSettings settings;
  settings.cut = cut;
  settings.slices = slices;
  return settings;
}

Result<Plan> plan_of(const Model& model, const std::string& cut, std::int64_t slices, std::int32_t slots) {
  return make_plan(model.specs, model.cuts, partial(cut, slices), slots);
}

std::string error_of(const Result<Plan>& plan) {
  EXPECT_FALSE(plan.ok());
  if (plan.ok()) return "";
  EXPECT_EQ(plan.error().code, ExitCode::usage);
  return plan.error().message;
}

std::map<std::string, Slice> by_name(const Plan& plan) {
  std::map<std::string, Slice> slices;
  for (const Slice& slice : plan.slices) slices[slice.name] = slice;
  return slices;
}

TEST(Planner, WithoutACutEverySlotTrainsEverythingButBuffers) {
  const Model model = model_of(1, 8, 2);
  const Plan plan = *plan_of(model, "none", 1, 3);
  ASSERT_EQ(plan.slices.size(), 1u);
  EXPECT_EQ(plan.slices[0].name, "shared");
  EXPECT_THAT(plan.slices[0].owners, ElementsAre(0, 1, 2));
  EXPECT_EQ(plan.slices[0].rows.count("blocks.0.mean"), 0u);
  EXPECT_EQ(elements_in(plan.owned_by(2), model.specs), 66 + 6 + 72 + 24 + 48 + 8 + 48);
}

TEST(Planner, SlicesAreNamedAfterTheirUnitsAndDealtToSlotsModuloTheirNumber) {
  const Plan plan = *plan_of(model_of(2, 8, 2), "mlp", 2, 5);
  const auto slices = by_name(plan);
  ASSERT_EQ(slices.size(), 5u);
  const Slice& lower = slices.at("blocks.1.mlp/units[0:4]");
  const Slice& upper = slices.at("blocks.1.mlp/units[4:8]");
  EXPECT_THAT(lower.owners, ElementsAre(0, 2, 4));
  EXPECT_THAT(upper.owners, ElementsAre(1, 3));
  EXPECT_EQ(upper.rows.size(), 3u);
  for (const char* param : {"blocks.1.mlp.up", "blocks.1.mlp.up_bias", "blocks.1.mlp.down"}) {
    EXPECT_THAT(upper.rows.at(param), ElementsAre(Rows{4, 8})) << param;
  }
  EXPECT_THAT(slices.at("shared").rows.at("blocks.1.attention.qkv"), ElementsAre(Rows{0, 12}));
  EXPECT_EQ(plan.owned_by(3).at("blocks.0.mlp.up"), std::vector<Rows>({{4, 8}}));
}

TEST(Planner, OneSliceIsTheSameWorkAsNoCut) {
  const Model model = model_of(2, 8, 2);
  EXPECT_EQ(plan_of(model, "mlp+heads", 1, 3)->owned_by(1), plan_of(model, "none", 1, 3)->owned_by(1));
}

TEST(Planner, JoinedCutsSelectBothKindsAndFollowEveryMember) {
  const auto slices = by_name(*plan_of(model_of(1, 8, 4), "mlp+heads", 4, 4));
  const Slice& heads = slices.at("blocks.0.attention/groups[1:2]");
  EXPECT_THAT(heads.rows.at("blocks.0.attention.qkv"), ElementsAre(Rows{2, 4}, Rows{10, 12}, Rows{18, 20}));
  EXPECT_THAT(heads.rows.at("blocks.0.attention.out"), ElementsAre(Rows{2, 4}));
  EXPECT_EQ(slices.count("blocks.0.mlp/units[2:4]"), 1u);
  EXPECT_EQ(slices.at("shared").rows.size(), 2u) << "embedding and norm";
}

TEST(Planner, RowsOfACutParameterThatNoUnitHoldsAreShared) {
  const std::vector<ParamSpec> specs{{"fused", {10, 3}}};
  const std::vector<CutGroup> cuts{{"m", "mlp", "units", 2, {{"fused", 1, 1}, {"fused", 2, 5}}}};
  const auto slices = by_name(*make_plan(specs, cuts, partial("mlp", 2), 2));
  EXPECT_THAT(slices.at("m/units[0:1]").rows.at("fused"), ElementsAre(Rows{1, 2}, Rows{5, 7}));
  EXPECT_THAT(slices.at("shared").rows.at("fused"), ElementsAre(Rows{0, 1}, Rows{3, 5}, Rows{9, 10}));
}

TEST(Planner, PartsOfAGroupDifferByOneUnitAndThePlanSaysSo) {
  const Plan plan = *plan_of(model_of(2, 10, 3), "mlp+heads", 3, 3);
  const auto slices = by_name(plan);
  EXPECT_EQ(slices.count("blocks.1.mlp/units[0:3]"), 1u);
  EXPECT_EQ(slices.count("blocks.1.mlp/units[3:6]"), 1u);
  EXPECT_EQ(slices.count("blocks.1.mlp/units[6:10]"), 1u);
  EXPECT_THAT(plan.notes, ElementsAre("The 10 units of mlp are divided unevenly: 3 slices of 3 to 4 units."))
      << "once for all layers, and not for the 3 groups of heads";
}

TEST(Planner, SaysHowManySlicesThereCanBe) {
  const Model model = model_of(2, 10, 2);
  EXPECT_EQ(error_of(plan_of(model, "mlp", 11, 11)),
            "partial.slices = 11 is more than the 10 units of blocks.0.mlp; use at most 10.");
  EXPECT_EQ(error_of(plan_of(model, "mlp+heads", 5, 5)),
            "partial.slices = 5 is more than the 2 groups of blocks.0.attention; use at most 2.");
  EXPECT_EQ(error_of(plan_of(model, "layer", 3, 3)),
            "partial.slices = 3 is more than the 2 layers of blocks; use at most 2.");
  EXPECT_THAT(error_of(plan_of(model, "blocks.*.mlp.up", 3, 3)),
              HasSubstr("more than the 2 whole tensors of partial.cut = 'blocks.*.mlp.up'; use at most 2."));
}

TEST(Planner, NamesSlicesThatNobodyWouldTrain) {
  EXPECT_EQ(error_of(plan_of(model_of(1, 8, 2), "mlp", 4, 3)),
            "partial.slices = 4 leaves 1 slices without an owner: there are only slots = 3; use at most 3 "
            "slices or more slots.");
}

TEST(Planner, CollectsAllMistakes) {
  EXPECT_THAT(error_of(plan_of(model_of(1, 10, 2), "mlp+heads", 4, 2)),
              AllOf(HasSubstr("without an owner"), HasSubstr("more than the 2 groups")));
}

TEST(Planner, SuggestsTheNearestCut) {
  const Model model = model_of(1, 8, 2);
  EXPECT_THAT(error_of(plan_of(model, "mpl", 2, 2)),
              AllOf(HasSubstr("did you mean 'mlp'?"), HasSubstr("none, heads, layer, mlp, tensor")));
  EXPECT_THAT(error_of(plan_of(model, "mlp+head", 2, 2)), HasSubstr("did you mean 'heads'?"));
  EXPECT_THAT(error_of(plan_of(model, "none+mlp", 2, 2)), HasSubstr("joins 'none' with a cut"));
}

TEST(Planner, RefusesSlicesOfNothing) {
  EXPECT_THAT(error_of(plan_of(model_of(1, 8, 2), "none", 2, 4)), HasSubstr("partial.cut is 'none'"));
  EXPECT_THAT(partial("none", 2).problems(), ElementsAre(HasSubstr("partial.slices = 2")));
  EXPECT_THAT(partial("mlp", 2).problems(), testing::IsEmpty());
}

TEST(Planner, AbortsOnAPlanWithAHoleAnOverlapOrNoOwner) {
  const std::vector<ParamSpec> specs{{"w", {4, 2}}};
  auto check = [&](std::vector<Slice> slices) {
    check_plan({.slots = 2, .slices = std::move(slices), .may_rest = false, .notes = {}}, specs);
  };
  check({{"a", {{"w", {{0, 2}}}}, {0}}, {"b", {{"w", {{2, 4}}}}, {1}}});
  EXPECT_DEATH(check({{"a", {{"w", {{0, 2}}}}, {0}}}), "slices of w end at row 2 of 4");
  EXPECT_DEATH(check({{"a", {{"w", {{0, 3}}}}, {0}}, {"b", {{"w", {{2, 4}}}}, {1}}}), "meet at row 3 and 2");
  EXPECT_DEATH(check({{"a", {{"w", {{0, 4}}}}, {}}}), "nobody owns a");
  EXPECT_DEATH(check({{"a", {{"w", {{0, 4}}}}, {2}}}), "owned by slot 2");
  check_plan({2, {{"a", {{"w", {{0, 4}}}}, {}}}, /*may_rest=*/true, {}}, specs);
  EXPECT_DEATH(check({{"a", {{"w", {{0, 4}}}, {"v", {{0, 1}}}}, {0}}}), "holds v");
}

TEST(Planner, AutomaticOuterRateFallsWithTheNumberOfSlices) {
  EXPECT_DOUBLE_EQ(auto_outer_lr(partial("none", 1)), 0.7);
  EXPECT_DOUBLE_EQ(auto_outer_lr(partial("mlp", 2)), 0.7);
  EXPECT_DOUBLE_EQ(auto_outer_lr(partial("mlp", 4)), 0.35);
  EXPECT_DOUBLE_EQ(auto_outer_lr(partial("mlp", 8), 1.0), 0.25);
  PartialSettings block = partial("mlp", 8);
  block.assign = "block";
  EXPECT_DOUBLE_EQ(auto_outer_lr(block), 0.7) << "one slice moves at a time";
}

}  // namespace
}  // namespace tessera
