// Cuts of every kind, and who gets what of them: coverage by brute force, and plans small enough to see.
#include "coordinator/assign.h"

#include <gmock/gmock.h>

#include <numeric>

#include "base/random.h"
#include "coordinator/cost.h"
#include "coordinator/planner.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

struct Model {
  std::vector<ParamSpec> specs;
  std::vector<CutGroup> cuts;
};

/// Blocks of attention and an MLP of unequal sizes, with what surrounds them.
Model model_of(int blocks, std::int64_t hidden, std::int64_t heads, std::int64_t width = 6) {
  Model model;
  model.specs.push_back({"embed.tokens", {11, width}});
  CutGroup layers{"blocks", "layer", "layers", blocks, {}};
  for (int i = 0; i < blocks; ++i) {
    const std::string block = "blocks." + std::to_string(i) + ".";
    const std::size_t first = model.specs.size();
    model.specs.push_back({block + "norm", {width}});
    model.specs.push_back({.name = block + "attention.q", .shape = {heads * 2, width}, .products = 1});
    model.specs.push_back({.name = block + "attention.o", .shape = {heads * 2, width}, .products = 1});
    model.specs.push_back({.name = block + "mlp.up", .shape = {hidden, width}, .products = 1});
    model.specs.push_back({block + "mlp.up_bias", {hidden}});
    model.specs.push_back({.name = block + "mlp.down", .shape = {hidden, width}, .products = 1});
    for (std::size_t p = first; p < model.specs.size(); ++p)
      layers.members.push_back({model.specs[p].name, model.specs[p].rows(), 0, i});
    model.specs.push_back({block + "mean", {width}, Role::buffer});
    model.cuts.push_back({block + "attention",
                          "heads",
                          "groups",
                          heads,
                          {{block + "attention.q", 2}, {block + "attention.o", 2}}});
    model.cuts.push_back({block + "mlp",
                          "mlp",
                          "units",
                          hidden,
                          {{block + "mlp.up"}, {block + "mlp.up_bias"}, {block + "mlp.down"}}});
  }
  model.cuts.push_back(layers);
  model.specs.push_back({.name = "head", .shape = {11, width}, .products = 1});
  return model;
}

PartialSettings partial(const std::string& cut, std::int64_t slices) {
  PartialSettings settings;
  settings.cut = cut;
  settings.slices = slices;
  return settings;
}

std::map<std::string, std::vector<std::int32_t>> owners(const Plan& plan) {
  std::map<std::string, std::vector<std::int32_t>> owners;
  for (const Slice& slice : plan.slices) owners[slice.name] = slice.owners;
  return owners;
}

PlanSchedule schedule_of(const Model& model, const PartialSettings& settings, std::int32_t slots,
                         const CostModel& cost = {}) {
  auto schedule = PlanSchedule::make(model.specs, model.cuts, settings, slots, cost);
  TESSERA_CHECK(schedule.ok(), ": ", schedule.ok() ? "" : schedule.error().message);
  return *schedule;
}

std::string error_of(const Model& model, const PartialSettings& settings, std::int32_t slots) {
  const auto schedule = PlanSchedule::make(model.specs, model.cuts, settings, slots);
  EXPECT_FALSE(schedule.ok());
  return schedule.ok() ? "" : schedule.error().message;
}

TEST(Cuts, LayersAreWholeBlocks) {
  const Plan plan = schedule_of(model_of(3, 8, 2), partial("layer", 2), 2).at({0});
  EXPECT_THAT(owners(plan), ElementsAre(testing::Pair("blocks/layers[0:1]", ElementsAre(0)),
                                        testing::Pair("blocks/layers[1:3]", ElementsAre(1)),
                                        testing::Pair("shared", ElementsAre(0, 1))));
  EXPECT_EQ(plan.slices[1].rows.size(), 12u) << "six parameters of each block, buffers aside";
  EXPECT_THAT(plan.slices[2].rows, ElementsAre(testing::Key("embed.tokens"), testing::Key("head")));
  EXPECT_THAT(plan.notes, ElementsAre(HasSubstr("3 layers of layer are divided unevenly")));
}

TEST(Cuts, TensorsAreDealtLargestFirstAndVectorsEmbeddingsAndHeadStayWithAll) {
  // Elements: up and down 48 each, q and o 24 each.
  const auto dealt = owners(schedule_of(model_of(1, 8, 2), partial("tensor", 3), 3).at({0}));
  EXPECT_THAT(dealt, ElementsAre(testing::Pair("blocks.0.attention.o", ElementsAre(2)),
                                 testing::Pair("blocks.0.attention.q", ElementsAre(2)),
                                 testing::Pair("blocks.0.mlp.down", ElementsAre(0)),
                                 testing::Pair("blocks.0.mlp.up", ElementsAre(1)),
                                 testing::Pair("shared", ElementsAre(0, 1, 2))));
  PartialSettings everything = partial("tensor", 3);
  everything.shared.clear();
  EXPECT_EQ(owners(schedule_of(model_of(1, 8, 2), everything, 3).at({0})).count("shared"), 0u);
}

TEST(Cuts, GlobsDealWholeTensorsAndJoinWithKinds) {
  const Model model = model_of(2, 8, 2);
  const Plan globs = schedule_of(model, partial("blocks.*.mlp.up, blocks.*.mlp.down", 2), 2).at({0});
  EXPECT_EQ(globs.slices.size(), 5u);
  EXPECT_EQ(elements_in(globs.owned_by(0), model.specs), elements_in(globs.owned_by(1), model.specs));
  const auto joined = owners(schedule_of(model, partial("mlp+tensor", 2), 2).at({0}));
  EXPECT_EQ(joined.count("blocks.1.mlp/units[4:8]"), 1u);
  EXPECT_EQ(joined.count("blocks.1.attention.q"), 1u) << "what no unit takes";
  EXPECT_EQ(joined.count("blocks.1.mlp.up"), 0u);
}

TEST(Cuts, GlobsThatNameNothingAreRefusedWithTheNearestName) {
  const Model model = model_of(2, 8, 2);
  EXPECT_EQ(error_of(model, partial("blocks.*.mpl.up", 2), 2),
            "partial.cut: no trained parameter is named like 'blocks.*.mpl.up'; the nearest is "
            "'blocks.0.mlp.up'.");
  PartialSettings settings = partial("mlp", 2);
  settings.shared = {"blocks.0.x.y.z.and.much.more.that.is.not.there"};
  EXPECT_THAT(error_of(model, settings, 2), HasSubstr("there are 'blocks.0."));
  settings.shared.clear();
  settings.frozen = {"hed.*"};
  EXPECT_THAT(trained_specs(model.specs, settings).error().message, HasSubstr("partial.frozen: no trained"));
  settings.frozen = {"*"};
  EXPECT_THAT(trained_specs(model.specs, settings).error().message, HasSubstr("leaves nothing to train"));
}

TEST(Cuts, NothingIsDividedTwice) {
  const Model model = model_of(2, 8, 2);
  EXPECT_THAT(error_of(model, partial("mlp+layer", 2), 2), HasSubstr("twice, as 'mlp' and as 'layer'"));
  EXPECT_THAT(error_of(model, partial("mlp, *.up", 2), 2), HasSubstr("as 'mlp' and as a whole tensor"));
}

TEST(Cuts, SharedAndFrozenParametersLeaveTheCut) {
  const Model model = model_of(3, 8, 2);
  PartialSettings settings = partial("layer", 2);
  settings.shared = {"*.norm"};
  settings.frozen = {"blocks.1.*", "head"};
  const std::vector<ParamSpec> specs = *trained_specs(model.specs, settings);
  const Plan plan = PlanSchedule::make(specs, model.cuts, settings, 2)->at({0});
  EXPECT_THAT(owners(plan), ElementsAre(testing::Pair("blocks/layers[0:1]", ElementsAre(0)),
                                        testing::Pair("blocks/layers[2:3]", ElementsAre(1)),
                                        testing::Pair("shared", ElementsAre(0, 1))))
      << "the frozen block is no unit any more";
  EXPECT_THAT(plan.slices.back().rows,
              ElementsAre(testing::Key("blocks.0.norm"), testing::Key("blocks.2.norm"),
                          testing::Key("embed.tokens")));
  settings.shared = {"blocks.*"};
  EXPECT_THAT(PlanSchedule::make(specs, model.cuts, settings, 2).error().message,
              HasSubstr("divides nothing"));
}

TEST(Assign, ReplicasGiveEverySlotSeveralSlices) {
  PartialSettings settings = partial("mlp", 4);
  settings.replicas = 2;
  const auto dealt = owners(schedule_of(model_of(1, 8, 2), settings, 4).at({0}));
  EXPECT_THAT(dealt.at("blocks.0.mlp/units[0:2]"), ElementsAre(0, 1));
  EXPECT_THAT(dealt.at("blocks.0.mlp/units[2:4]"), ElementsAre(1, 2));
  EXPECT_THAT(dealt.at("blocks.0.mlp/units[6:8]"), ElementsAre(0, 3));
  EXPECT_THAT(schedule_of(model_of(1, 8, 2), settings, 3).owned({0}, {0}).at("blocks.0.mlp.up"),
              ElementsAre(Rows{0, 2}, Rows{6, 8}))
      << "three slots with two slices each do for four";
  settings.replicas = 5;
  EXPECT_THAT(error_of(model_of(1, 8, 2), settings, 4), HasSubstr("use at most 4"));
}

TEST(Assign, AFastViewNeedsSlicesOfDifferentOwners) {
  PartialSettings settings = partial("none", 1);
  settings.owner_view = "fast";
  EXPECT_THAT(error_of(model_of(1, 8, 2), settings, 2),
              HasSubstr("needs a cut that is divided among the slots"));
  settings = partial("mlp", 2);
  settings.owner_view = "fast";
  settings.assign = "block";
  settings.rotate_every = 1;
  EXPECT_THAT(error_of(model_of(1, 8, 2), settings, 2), HasSubstr("partial.assign \"block\""));
}

TEST(Assign, ExplicitOwnersAreTakenAtTheirWordAndTheirMistakesNamed) {
  PartialSettings settings = partial("mlp", 2);
  settings.assign = "explicit";
  settings.owners = {"2, 0", "1,2"};
  const auto dealt = owners(schedule_of(model_of(1, 8, 2), settings, 3).at({0}));
  EXPECT_THAT(dealt.at("blocks.0.mlp/units[0:4]"), ElementsAre(0, 2));
  EXPECT_THAT(dealt.at("blocks.0.mlp/units[4:8]"), ElementsAre(1, 2));
  const auto refusal = [&](std::vector<std::string> lists) {
    settings.owners = std::move(lists);
    return error_of(model_of(1, 8, 2), settings, 3);
  };
  EXPECT_THAT(refusal({"0", "1,3"}), HasSubstr("names slot 3, but the slots are 0 to 2"));
  EXPECT_THAT(refusal({"0", ""}), HasSubstr("is not a list of slots"));
  EXPECT_THAT(refusal({"0", "1 2"}), HasSubstr("is not a list of slots")) << "not slot 12";
  EXPECT_THAT(refusal({"0", "1,1"}), HasSubstr("names a slot twice"));
  EXPECT_THAT(refusal({"0"}), HasSubstr("names the slots of 1 slices, but partial.slices = 2"));
  settings.cut = "*";
  EXPECT_THAT(refusal({"0", "1"}), HasSubstr("leaves slot 2 nothing to train"));
}

TEST(Assign, BalancedSlicesMakePredictedStepTimesEqual) {
  const Model model = model_of(6, 240, 8, 32);
  const CostModel cost{.attention_width = 96, .context = 16};
  PartialSettings settings = partial("mlp", 3);
  settings.assign = "balanced";
  settings.speeds = {1.0, 1.1, 1.05, 1.2};  // slice 0 belongs to slots 0 and 3: the slower one decides
  const Plan plan = schedule_of(model, settings, 4, cost).at({0});
  const CostReport report = cost_of(plan, model.specs, cost, {});
  const auto time = [&](int slot) { return report.slots[slot].step.total() / settings.speeds[slot]; };
  EXPECT_NEAR(time(1) / time(0), 1, 0.002);
  EXPECT_NEAR(time(2) / time(0), 1, 0.002);
  EXPECT_EQ(report.slots[3].step.total(), report.slots[0].step.total());
  const CostReport equal =
      cost_of(schedule_of(model, partial("mlp", 3), 4, cost).at({0}), model.specs, cost, {});
  EXPECT_GT(equal.slots[0].step.total() / 1.0 / (equal.slots[1].step.total() / 1.1), 1.09);
  EXPECT_THAT(plan.notes.back(), HasSubstr("waits 17%"));
  // A slot so slow that nothing would be left for it still owns a unit of every group.
  settings.speeds = {0.1, 1, 1, 1};
  for (const Slice& slice : schedule_of(model, settings, 4, cost).at({0}).slices) {
    if (slice.owners.front() == 0 && slice.name != "shared") {
      EXPECT_EQ(slice.rows.begin()->second[0].count(), 1);
    }
  }
  settings.speeds = {0.1, 1, 1.03, 1};
  const CostReport held = cost_of(schedule_of(model, settings, 4, cost).at({0}), model.specs, cost, {});
  EXPECT_NEAR(held.slots[1].step.total() * 1.03 / held.slots[2].step.total(), 1, 0.002)
      << "the others share what it leaves";
  PartialSettings tensors = partial("tensor", 2);
  tensors.assign = "balanced";
  tensors.speeds = {1, 0.01};
  const Plan dealt = schedule_of(model_of(1, 8, 2), tensors, 2, cost).at({0});
  EXPECT_EQ(dealt.owned_by(1).size(), 1u + 4u) << "one tensor, and the two tables and two vectors of all";
  settings.speeds = {1, 1};
  EXPECT_THAT(error_of(model, settings, 4), HasSubstr("partial.speeds has 2 numbers for 4 slots"));
}

TEST(Assign, SlotsPassOnToTheNextSliceAndComeRound) {
  PartialSettings settings = partial("mlp", 3);
  settings.rotate_every = 2;
  const PlanSchedule schedule = schedule_of(model_of(1, 9, 2), settings, 4);
  EXPECT_EQ(schedule.cycle(), 6);
  const auto up = [&](std::int32_t slot, std::int64_t version) {
    return schedule.owned({slot}, {version}).at("blocks.0.mlp.up")[0].begin / 3;
  };
  for (std::int64_t version = 0; version < 13; ++version) {
    for (std::int32_t slot = 0; slot < 4; ++slot) EXPECT_EQ(up(slot, version), (slot + version / 2) % 3);
    EXPECT_EQ(schedule.changes_at({version}), version > 0 && version % 2 == 0) << version;
    check_plan(schedule.at({version}), model_of(1, 9, 2).specs);
  }
  EXPECT_FALSE(schedule_of(model_of(1, 9, 2), partial("mlp", 3), 4).changes_at({2}));
}

TEST(Assign, BlocksAreTrainedByAllInTurn) {
  PartialSettings settings = partial("mlp", 4);
  settings.assign = "block";
  settings.rotate_every = 1;
  const Model model = model_of(1, 8, 2);
  const PlanSchedule schedule = schedule_of(model, settings, 2);
  RowSet seen;
  for (std::int64_t version = 0; version < 4; ++version) {
    EXPECT_EQ(schedule.owned({0}, {version}), schedule.owned({1}, {version}));
    EXPECT_EQ(schedule.trained({version}), schedule.owned({0}, {version}));
    EXPECT_THAT(schedule.owned({0}, {version}).at("blocks.0.mlp.down"),
                ElementsAre(Rows{2 * version, 2 * version + 2}));
  }
  settings.rotate_every = 0;
  EXPECT_THAT(error_of(model, settings, 2), HasSubstr("needs partial.rotate_every of at least 1"));
}

/// Everything that a plan promises, counted row by row.
void expect_tiling(const Model& model, const std::vector<ParamSpec>& specs, const PlanSchedule& schedule,
                   std::int32_t slots) {
  std::map<std::string, std::vector<int>> trained_in_cycle;
  const std::int64_t cycle = std::min<std::int64_t>(schedule.cycle(), 12);
  for (std::int64_t version = 0; version < cycle; ++version) {
    const Plan plan = schedule.at({version});
    std::map<std::string, std::vector<int>> slices_of, owners_of;
    for (const ParamSpec& spec : specs)
      slices_of[spec.name] = owners_of[spec.name] = std::vector<int>(spec.rows());
    std::set<std::string> names;
    for (const Slice& slice : plan.slices) {
      ASSERT_TRUE(names.insert(slice.name).second) << slice.name << " twice";
      for (const auto& [param, ranges] : slice.rows) {
        for (const Rows& rows : ranges) {
          for (std::int64_t row = rows.begin; row < rows.end; ++row) ++slices_of.at(param).at(row);
        }
      }
    }
    for (std::int32_t slot = 0; slot < slots; ++slot) {
      const RowSet owned = schedule.owned({slot}, {version});
      ASSERT_EQ(owned, plan.owned_by(slot));
      ASSERT_FALSE(owned.empty());
      for (const auto& [param, ranges] : owned) {
        for (const Rows& rows : ranges) {
          for (std::int64_t row = rows.begin; row < rows.end; ++row) ++owners_of.at(param).at(row);
        }
      }
    }
    const RowSet trained = schedule.trained({version});
    for (const ParamSpec& spec : specs) {
      std::int64_t with_owner = 0;
      auto& in_cycle = trained_in_cycle[spec.name];
      in_cycle.resize(spec.rows());
      for (std::int64_t row = 0; row < spec.rows(); ++row) {
        ASSERT_EQ(slices_of[spec.name][row], spec.role == Role::weight) << spec.name << " row " << row;
        const bool has_owner = owners_of[spec.name][row] > 0;
        ASSERT_EQ(has_owner || plan.may_rest, spec.role == Role::weight || plan.may_rest);
        ASSERT_TRUE(!has_owner || spec.role == Role::weight);
        with_owner += owners_of[spec.name][row] > 0;
        in_cycle[row] += owners_of[spec.name][row];
      }
      ASSERT_EQ(elements_in(trained, {spec}), with_owner * spec.row_size());
    }
  }
  if (cycle < schedule.cycle()) return;
  for (const ParamSpec& spec : model.specs) {
    for (const int owners : trained_in_cycle[spec.name]) {
      const bool frozen = std::any_of(specs.begin(), specs.end(), [&](const ParamSpec& s) {
        return s.name == spec.name && s.role != Role::weight;
      });
      ASSERT_EQ(owners > 0, !frozen) << spec.name << " over a cycle";
    }
  }
}

TEST(Assign, EveryPlanThatIsMadeTilesTheModelAtEveryVersion) {
  const std::uint64_t base = random_bits128().low;
  std::map<std::string, int> made;
  int refused = 0;
  for (std::uint64_t i = 0; i < 600; ++i) {
    const std::uint64_t seed = base + i;
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    const auto draw = [&](std::uint64_t most) { return static_cast<std::int64_t>(1 + random.below(most)); };
    const Model model = model_of(static_cast<int>(draw(4)), draw(20), draw(5));
    const std::vector<std::string> cuts{"mlp",    "heads",      "mlp+heads",      "layer",
                                        "tensor", "mlp+tensor", "heads, *.mlp.*", "*.q, *.down"};
    PartialSettings settings = partial(cuts[random.below(cuts.size())], draw(5));
    const auto slots = static_cast<std::int32_t>(draw(7));
    const std::vector<std::string> deals{"modulo", "balanced", "explicit", "block"};
    settings.assign = deals[random.below(deals.size())];
    if (settings.assign == "modulo" && random.chance(0.3)) settings.replicas = draw(3);
    if (settings.assign == "block" || (settings.assign != "balanced" && random.chance(0.5)))
      settings.rotate_every = draw(2);
    if (settings.assign == "balanced") {
      for (std::int32_t slot = 0; slot < slots; ++slot) settings.speeds.push_back(0.2 + random.uniform());
    }
    if (settings.assign == "explicit") {
      for (std::int64_t k = 0; k < settings.slices; ++k) {
        const std::int64_t first = draw(slots) - 1, second = draw(slots) - 1;
        settings.owners.push_back(std::to_string(first) +
                                  (second == first ? "" : "," + std::to_string(second)));
      }
    }
    if (random.chance(0.2)) settings.shared = {"*.norm", "blocks.0.mlp.*"};
    if (random.chance(0.2)) settings.frozen = {"embed.tokens", "blocks.0.attention.q"};
    const std::vector<ParamSpec> specs = *trained_specs(model.specs, settings);
    const CostModel cost{.attention_width = 4, .context = 4};
    const auto schedule = PlanSchedule::make(specs, model.cuts, settings, slots, cost);
    if (!schedule.ok()) {
      ++refused;
      EXPECT_THAT(schedule.error().message, HasSubstr("partial."));
      continue;
    }
    ++made[settings.assign];
    expect_tiling(model, specs, *schedule, slots);
    if (HasFatalFailure()) return;
    // Dealing is a function of its arguments alone.
    const auto again = PlanSchedule::make(specs, model.cuts, settings, slots, cost);
    EXPECT_EQ(owners(again->at({0})), owners(schedule->at({0})));
  }
  for (const char* assign : {"modulo", "balanced", "explicit", "block"})
    EXPECT_GT(made[assign], 25) << assign;
  EXPECT_GT(refused, 25);
}

}  // namespace
}  // namespace tessera
