// Predicted costs against the table of reference/partial-updates-and-diloco.md, section 1.2, and against sums
// by hand.
#include "coordinator/cost.h"

#include <gmock/gmock.h>

#include "coordinator/planner.h"

namespace tessera {
namespace {

struct Gpt {
  std::vector<ParamSpec> specs;
  std::vector<CutGroup> cuts;
  CostModel cost;
};

/// A decoder with an MLP of four times the width, tied output head, hidden units and heads first as families
/// store them.
Gpt gpt(std::int64_t width, std::int64_t layers, std::int64_t heads, std::int64_t vocab,
        std::int64_t context) {
  Gpt model;
  model.specs.push_back({.name = "embedding", .shape = {vocab, width}, .products = 1});
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string block = "blocks." + std::to_string(i) + ".";
    CutGroup attention{block + "attention", "heads", "groups", heads, {}},
        mlp{block + "mlp", "mlp", "units", 4 * width, {}};
    for (const char* name : {"attention.q", "attention.k", "attention.v", "attention.out"}) {
      model.specs.push_back({.name = block + name, .shape = {width, width}, .products = 1});
      attention.members.push_back({block + name, width / heads});
    }
    for (const char* name : {"mlp.up", "mlp.down"}) {
      model.specs.push_back({.name = block + name, .shape = {4 * width, width}, .products = 1});
      mlp.members.push_back({block + name});
    }
    model.cuts.push_back(attention);
    model.cuts.push_back(mlp);
  }
  model.cost.attention_width = static_cast<double>(width * layers);
  model.cost.context = context;
  return model;
}

CostReport report_of(const Gpt& model, const std::string& cut, std::int64_t slices, std::int32_t slots,
                     const CostSettings& settings = {}) {
  PartialSettings partial;
  partial.cut = cut;
  partial.slices = slices;
  return cost_of(*make_plan(model.specs, model.cuts, partial, slots), model.specs, model.cost, settings);
}

struct Row {
  std::string cut;
  std::int64_t slices;
  double flops, memory;  // percent saved
};

TEST(Cost, SavesTheFlopsOfThePapersTable) {
  const Gpt model = gpt(2048, 24, 32, 50257, 1024);
  for (const Row& row : {Row{"mlp", 2, 10, 0}, Row{"mlp", 4, 15, 0}, Row{"mlp", 8, 17, 0},
                         Row{"mlp", 32, 19, 0}, Row{"mlp+heads", 2, 15, 0}, Row{"mlp+heads", 4, 22, 0},
                         Row{"mlp+heads", 8, 26, 0}, Row{"mlp+heads", 32, 29, 0}}) {
    SCOPED_TRACE(row.cut + " in " + std::to_string(row.slices));
    const CostReport report = report_of(model, row.cut, row.slices, static_cast<std::int32_t>(row.slices));
    EXPECT_NEAR(100 * report.flops_saved(), row.flops, 0.5);
  }
}

TEST(Cost,
     SavesTheStaticMemoryOfThePapersTable) {  // without an anchor: 16 bytes a parameter, of which 4 stay
  const Gpt model = gpt(2048, 24, 32, 32768, 1024);
  for (const Row& row :
       {Row{"mlp", 2, 0, 24}, Row{"mlp", 4, 0, 36}, Row{"mlp", 8, 0, 42}, Row{"mlp+heads", 2, 0, 36},
        Row{"mlp+heads", 4, 0, 53}, Row{"mlp+heads", 8, 0, 62}}) {
    SCOPED_TRACE(row.cut + " in " + std::to_string(row.slices));
    const CostReport report = report_of(model, row.cut, row.slices, static_cast<std::int32_t>(row.slices));
    double kept = 0;
    for (const SlotCost& slot : report.slots) kept += slot.memory.total() - slot.memory.anchor;
    EXPECT_NEAR(100 * (1 - kept / report.total_data_parallel.memory), row.memory, 0.6);
  }
  EXPECT_NEAR(report_of(model, "mlp", 4, 4).slots[0].trainable_share, 0.53, 0.005);
  EXPECT_NEAR(report_of(model, "mlp+heads", 4, 4).slots[0].trainable_share, 0.29, 0.005);
}

TEST(Cost, OfATinyModelByHand) {
  // width 4, one layer, vocabulary 10, context 8: embedding 40, attention 4 x 16 = 64, MLP 2 x 16 x 4 = 128,
  // together 232.
  const Gpt model = gpt(4, 1, 2, 10, 8);
  CostSettings settings;
  settings.tokens_per_step = 16;
  settings.steps = 5;
  const CostReport report = report_of(model, "mlp", 2, 4, settings);
  EXPECT_EQ(report.parameters, 232);
  ASSERT_EQ(report.slots.size(), 4u);
  for (const SlotCost& slot : report.slots) {
    EXPECT_EQ(slot.owned_parameters, 168);
    EXPECT_EQ(slot.step.forward, 16 * (2 * 232 + 2 * 8 * 4));
    EXPECT_EQ(slot.step.activation_backward, 16 * (2 * 232 + 4 * 8 * 4));
    EXPECT_EQ(slot.step.weight_gradient, 16 * 2 * 168);
    EXPECT_EQ(slot.memory.weights, 4 * 232);
    EXPECT_EQ(slot.memory.gradients, 4 * 168);
    EXPECT_EQ(slot.memory.moments, 8 * 168);
    EXPECT_EQ(slot.memory.anchor, 4 * 168);
    EXPECT_EQ(slot.bytes_up, 4 * 168);
    EXPECT_EQ(slot.bytes_down, 4 * 232);
  }
  EXPECT_EQ(report.total.bytes_up, 4 * 4 * 168);
  settings.moments = [](const ParamSpec& spec) { return spec.name == "embedding" ? 2.0 : 1.0; };
  EXPECT_EQ(report_of(model, "mlp", 2, 4, settings).slots[0].memory.moments, 4 * (2 * 40 + 64 + 64));
  EXPECT_EQ(report.diloco.step.weight_gradient, 16 * 2 * 232);
  EXPECT_EQ(report.diloco.memory.total(), 20 * 232);
  EXPECT_EQ(report.data_parallel.memory.total(), 16 * 232);
  EXPECT_EQ(report.data_parallel.bytes(), 5 * 2 * 4 * 232) << "both ways in each of the five steps";
  EXPECT_EQ(report.coordinator_bytes, 16 * 232);
  EXPECT_EQ(report.accumulator_bytes, 8 * 232);
  EXPECT_DOUBLE_EQ(report.bytes_saved(), 1 - (1 + 168.0 / 232) / 2) << "(1 + f) / 2 of DiLoCo's bytes";
  EXPECT_DOUBLE_EQ(report.memory_saved(), 0.8 * (1 - 168.0 / 232));
  EXPECT_THAT(report.notes, testing::IsEmpty());
}

TEST(Cost, FrozenBiasesSaveMemoryButNoMatmul) {
  Gpt model = gpt(4, 1, 2, 10, 8);
  model.specs.push_back({"blocks.0.mlp.bias", {16}});
  model.cuts[1].members.push_back({"blocks.0.mlp.bias"});
  const CostReport report = report_of(model, "mlp", 2, 2);
  EXPECT_EQ(report.slots[0].owned_parameters, 168 + 8);
  EXPECT_EQ(report.slots[0].step.weight_gradient, 2 * 168);
}

TEST(Cost, OfTablesThatAreLookedUpIsNoMatmul) {
  Gpt model = gpt(4, 1, 2, 10, 8);
  model.specs.push_back({"positions", {8, 4}});
  CutGroup group{"positions", "places", "rows", 8, {{"positions"}}};
  model.cuts.push_back(group);
  const CostReport report = report_of(model, "places", 2, 2);
  EXPECT_EQ(report.slots[0].owned_parameters, 232 + 16);
  EXPECT_EQ(report.flops_saved(), 0);
}

TEST(Cost, PeakIsTheWorstMomentOfForwardAndBackward) {
  // Three stages: by hand, the worst moment is in the backward pass of the second.
  const std::vector<MemoryStage> stages = {
      {.name = "a", .kept = 10, .forward = 5, .backward = 7, .gradients = 100},
      {.name = "b", .kept = 20, .forward = 2, .backward = 60, .gradients = 30},
      {.name = "c", .kept = 40, .forward = 3, .backward = 4, .gradients = 0}};
  const StepMemory memory = step_memory(stages);
  EXPECT_EQ(memory.activations, 70);
  EXPECT_EQ(memory.gradients, 130);
  EXPECT_EQ(memory.peak, std::max({10 + 5, 30 + 2, 70 + 3, 70 + 4, 30 + 30 + 60, 10 + 130 + 7}));
  Gpt model = gpt(4, 1, 2, 10, 8);
  model.cost.stages = [&](const RowSet&, double sequences) {
    std::vector<MemoryStage> scaled = stages;
    for (MemoryStage& stage : scaled) stage.kept *= sequences;
    return scaled;
  };
  CostSettings settings;
  settings.sequences = 100;
  settings.objective = {.name = "loss", .kept = 1, .forward = 0, .backward = 2, .gradients = 0};
  const SlotCost slot = report_of(model, "none", 1, 1, settings).slots[0];
  EXPECT_EQ(slot.activations, 7001);
  EXPECT_EQ(slot.peak, (4 + 8) * 232 + 7000 + 4) << "in the last stage, when the loss has gone";
  settings.sequences = 0.01;
  EXPECT_EQ(report_of(model, "none", 1, 1, settings).slots[0].peak, (4 + 8 + 4) * 232) << "at the optimizer";
}

TEST(Cost, WithoutACutIsDiLoCo) {
  const CostReport report = report_of(gpt(4, 2, 2, 10, 8), "none", 1, 3);
  EXPECT_EQ(report.flops_saved(), 0);
  EXPECT_EQ(report.memory_saved(), 0);
  EXPECT_EQ(report.bytes_saved(), 0);
  EXPECT_DOUBLE_EQ(report.bytes_saved_against_data_parallel(), 0.99) << "one exchange instead of H = 100";
}

TEST(Cost, FastValuesCostTheCoordinatorMemoryAndTheWireOnlyWhereTheyAreFetched) {
  const Gpt model = gpt(64, 2, 4, 256, 32);
  const double cut = 2 * 2 * 4 * 64 * 64;  // up and down of two blocks
  const auto with_fast = [](const ParamSpec&, bool is_cut) { return is_cut ? 2.0 : 1.0; };
  const CostReport reset = report_of(model, "mlp", 2, 4);
  const CostReport own = report_of(model, "mlp", 2, 4, {.outer_states = with_fast});
  const CostReport fetched = report_of(model, "mlp", 2, 4, {.outer_states = with_fast, .fetches_fast = true});
  EXPECT_EQ(own.coordinator_bytes, reset.coordinator_bytes + 4 * cut);
  EXPECT_EQ(own.slots[0].bytes_down, reset.slots[0].bytes_down);
  EXPECT_EQ(fetched.slots[0].bytes_down, reset.slots[0].bytes_down + 4 * cut);
  EXPECT_EQ(fetched.slots[0].bytes_up, reset.slots[0].bytes_up);
  EXPECT_EQ(fetched.total.bytes_down, 4 * fetched.slots[0].bytes_down);
}

TEST(Cost, WhereTheCoordinatorStepsSlotsKeepNoMoments) {
  const CostReport report = report_of(gpt(4, 1, 2, 10, 8), "none", 1, 4, {.steps_locally = false});
  EXPECT_EQ(report.slots[0].memory.total(), (4 + 4) * 232) << "weights and gradients";
  EXPECT_EQ(report.diloco.memory.total(), 20 * 232) << "DiLoCo's slots step themselves all the same";
}

TEST(Cost, WhatMethodAndCodecKeepIsCounted) {
  const Gpt model = gpt(4, 1, 2, 10, 8);
  const CostReport report = report_of(
      model, "mlp", 2, 4,
      {.slot_states = 2, .outer_states = [](const ParamSpec&, bool cut) { return cut ? 0.0 : 3.0; }});
  EXPECT_EQ(report.slots[0].memory.method, 2 * 4 * 168);
  EXPECT_EQ(report.slots[0].memory.total(), 4 * 232 + (4 + 8 + 4 + 8) * 168);
  EXPECT_EQ(report.coordinator_bytes, (4 + 8) * 232 + 3 * 4 * (232 - 128)) << "nothing of the cut MLP";
}

TEST(Cost, MergesAccumulateWhereTheMethodReadsDeltasOrManyOwnersShareACoordinate) {
  const Gpt model = gpt(4, 1, 2, 10, 8);
  const CostSettings lean{.deltas = Deltas::made_twice};
  EXPECT_EQ(report_of(model, "none", 1, 6, lean).accumulator_bytes, 0);
  EXPECT_EQ(report_of(model, "none", 1, 6, lean).coordinator_bytes, 8 * 232);
  EXPECT_EQ(report_of(model, "none", 1, 7, lean).accumulator_bytes, 8 * 232);
  EXPECT_EQ(report_of(model, "mlp", 2, 8, lean).accumulator_bytes, 0) << "8 * 168 / 232 contributions";
  EXPECT_EQ(report_of(model, "none", 1, 7, {.deltas = Deltas::made_once}).accumulator_bytes, 0);
}

TEST(Cost, FragmentsAreTheBytesOfTheRoundInParts) {
  // Embedding 40 and attention 64 are shared, the MLP's 128 lie half with each two of four slots.
  const Gpt model = gpt(4, 1, 2, 10, 8);
  CostSettings settings;
  settings.fragments.resize(2);  // of everything the first rows, but for three of the embedding's ten
  for (const ParamSpec& spec : model.specs) {
    const std::int64_t middle = spec.name.starts_with("embed") ? 3 : spec.rows() / 2;
    add_rows(settings.fragments[0], spec.name, {0, middle});
    add_rows(settings.fragments[1], spec.name, {middle, spec.rows()});
  }
  const CostReport report = report_of(model, "mlp", 2, 4, settings);
  EXPECT_EQ(report.slots[0].bytes_up, 4 * 168);
  EXPECT_EQ(report.slots[0].bytes_down, 4 * 232);
  EXPECT_EQ(report.slots[0].merge_up, 4 * (12 + 32 + 64)) << "its slice, all of it in the first";
  EXPECT_EQ(report.slots[1].merge_up, 4 * (28 + 32 + 64));
  EXPECT_EQ(report.slots[0].merge_down, 4 * (28 + 32 + 64));
  EXPECT_EQ(report.total.merge_up, 4 * (4 * (28 + 32) + 2 * 64));
  EXPECT_EQ(report.total.merge_down, 4 * report.slots[0].merge_down);
  EXPECT_EQ(report.total_diloco.merge_up, 4 * 4 * 232);
  settings.fetches_fast = true;
  const CostReport fetched = report_of(model, "mlp", 2, 4, settings);
  EXPECT_EQ(fetched.slots[0].bytes_down, 4 * (232 + 128));
  EXPECT_EQ(fetched.slots[0].merge_down, report.slots[0].merge_down + 4 * 64);
}

TEST(Cost, CodecsAreCountedByPieceAndUpdatesWithoutWhatRests) {
  // Embedding, 4 of attention and 2 of the MLP are 7 pieces, each with a scale of 4 bytes.
  const Gpt model = gpt(4, 1, 2, 10, 8);
  CostSettings settings;
  settings.piece_bytes_up =
      settings.piece_bytes_down = [](std::int64_t elements) { return static_cast<double>(elements + 4); };
  settings.updates = true;
  const CostReport report = report_of(model, "mlp", 2, 4, settings);
  EXPECT_EQ(report.slots[0].bytes_up, 168 + 7 * 4);
  EXPECT_EQ(report.slots[0].bytes_down, 232 + 7 * 4);
  EXPECT_EQ(report.total.bytes_up, 4 * (168 + 7 * 4));
  EXPECT_EQ(report.diloco.bytes_up, 232 + 7 * 4);
  PartialSettings partial;
  partial.cut = "mlp";
  partial.slices = 2;
  partial.assign = "block";
  partial.rotate_every = 1;
  const Plan half = PlanSchedule::make(model.specs, model.cuts, partial, 4)->at({0});
  EXPECT_EQ(cost_of(half, model.specs, model.cost, settings).slots[0].bytes_down, 168 + 7 * 4);
  settings.updates = false;
  EXPECT_EQ(cost_of(half, model.specs, model.cost, settings).slots[0].bytes_down, 232 + 7 * 4);
}

TEST(Cost, NotesThatSomeSlicesHaveMoreOwners) {
  EXPECT_THAT(report_of(gpt(4, 1, 2, 10, 8), "mlp", 2, 3).notes,
              testing::ElementsAre(testing::HasSubstr("2 owners and others 1, because 3 slots")));
}

}  // namespace
}  // namespace tessera
