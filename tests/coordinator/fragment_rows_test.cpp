// Fragments of rows: they are the whole, dealt once, and merging them one by one is merging it.
#include <gmock/gmock.h>

#include "base/pieces.h"
#include "coordinator/state.h"
#include "tests/coordinator/small_model.h"
#include "tests/optim/chosen_method.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

/// DiLoCo whose parameters are dealt in pieces.
class Dealt final : public OuterMethod {
 public:
  Dealt(const Context& context, std::vector<std::vector<std::string>> pieces)
      : merge_(Registry<OuterMethod>::builtin().make("diloco", context)), pieces_(std::move(pieces)) {}
  std::vector<std::vector<std::string>> fragments() const override { return pieces_; }
  Due due(std::int64_t) const override { return {}; }
  std::int64_t steps_per_merge() const override { return 1; }
  std::vector<std::string> state_names() const override { return merge_->state_names(); }
  std::vector<std::string> cut_state_names() const override { return merge_->cut_state_names(); }
  OuterReport apply(std::int64_t version, std::span<const Update> updates) const override {
    return merge_->apply(version, updates);
  }

 private:
  std::unique_ptr<OuterMethod> merge_;
  std::vector<std::vector<std::string>> pieces_;
};

/// Every row to some fragment.
std::vector<RowSet> random_deal(const std::vector<ParamSpec>& specs, std::size_t fragments,
                                KeyedRandom& random) {
  std::vector<RowSet> dealt(fragments);
  for (const ParamSpec& spec : specs) {
    for (std::int64_t row = 0; row < spec.rows(); ++row)
      add_rows(dealt[random.below(fragments)], spec.name, {row, row + 1});
  }
  return dealt;
}

TEST(FragmentRows, MergedOneByOneGiveTheBitsOfMergingTheWhole) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    const Plan plan = small_plan(1 + static_cast<std::int64_t>(random.below(4)), 4);
    OuterMethod::Context context{.specs = small_specs(), .cut = OuterStep{0.3, random.chance(0.5) ? 0.5 : 0}};
    const MergeSettings settings{.cut = plan.cut_params(), .keeps_fast = random.chance(0.5)};
    const std::vector<RowSet> dealt = random_deal(small_specs(), 1 + random.below(4), random);
    std::vector<std::vector<std::string>> pieces;
    for (const RowSet& rows : dealt) pieces.push_back(pieces_of_rows(rows, small_specs()));
    const Merger whole(
        small_specs(),
        std::make_shared<Dealt>(context,
                                std::vector<std::vector<std::string>>{{"emb", "mlp.up", "mlp.bias", "norm"}}),
        settings),
        parts(small_specs(), std::make_shared<Dealt>(context, pieces), settings);

    TensorMap theta = random_tensors(small_specs(), seed), other = clone_of(theta);
    TensorMap state = whole.initial_state(theta), other_state = parts.initial_state(other);
    for (std::int64_t version = 1; version <= 3; ++version) {
      std::vector<MergeInput> inputs =
          random_inputs(plan, key_of({seed, static_cast<std::uint64_t>(version)}));
      if (random.chance(0.3)) inputs.erase(inputs.begin() + static_cast<std::ptrdiff_t>(random.below(4)));
      const MergeOutcome outcome = whole.merge({0}, {version}, inputs, theta, state);
      MergeOutcome sum;
      double squares = 0;
      for (std::int32_t f = 0; f < static_cast<std::int32_t>(dealt.size()); ++f) {
        std::vector<MergeInput> of_fragment;
        for (const MergeInput& input : inputs) {
          const RowSet brings = parts.expected({f}, plan.owned_by(input.slot.value));
          of_fragment.push_back({input.slot, pieces_of(input.pieces, brings, small_specs())});
          EXPECT_TRUE(parts.validate({f}, plan.owned_by(input.slot.value), of_fragment.back().pieces).ok());
        }
        const MergeOutcome part = parts.merge({f}, {version}, of_fragment, other, other_state);
        sum.updated += part.updated;
        sum.uncovered += part.uncovered;
        add_rows(sum.uncovered_rows, part.uncovered_rows);
        squares += part.delta_norm * part.delta_norm;
      }
      EXPECT_EQ(sum.updated, outcome.updated);
      EXPECT_EQ(sum.uncovered, outcome.uncovered);
      EXPECT_EQ(sum.uncovered_rows, outcome.uncovered_rows);
      EXPECT_NEAR(squares, outcome.delta_norm * outcome.delta_norm, 1e-9);
      ASSERT_TRUE(bit_equal(theta, other));
      ASSERT_TRUE(bit_equal(state, other_state));
    }
  }
}

TEST(FragmentRows, HoldEveryRowOnceOrTheMergerAborts) {
  const auto make = [](std::vector<std::string> first, std::vector<std::string> second) {
    const OuterMethod::Context context{.specs = small_specs()};
    Merger(small_specs(), std::make_shared<Dealt>(context, std::vector{std::move(first), std::move(second)}));
  };
  make({"emb", "mlp.up[0:3]", "norm"}, {"mlp.up[3:8]", "mlp.bias"});
  EXPECT_DEATH(make({"emb", "mlp.up[0:3]", "norm"}, {"mlp.up[4:8]", "mlp.bias"}), "mlp.up is in no fragment");
  EXPECT_DEATH(make({"emb", "mlp.up[0:3]", "norm"}, {"mlp.up[2:8]", "mlp.bias"}),
               "mlp.up is in two fragments");
}

TEST(FragmentRows, NameWhatTheyHoldOfEachSlice) {
  const Plan plan = small_plan(4, 4);
  const std::vector<Slice> held = slices_of_fragment(plan, {{"mlp.up", {{1, 5}}}, {"norm", {{0, 3}}}});
  ASSERT_EQ(held.size(), 4u);
  EXPECT_EQ(held[0].rows, (RowSet{{"mlp.up", {{1, 2}}}}));
  EXPECT_EQ(held[1].rows, (RowSet{{"mlp.up", {{2, 4}}}}));
  EXPECT_EQ(held[2].rows, (RowSet{{"mlp.up", {{4, 5}}}}));
  EXPECT_EQ(held[3].name, "shared");
  EXPECT_EQ(held[3].rows, (RowSet{{"norm", {{0, 3}}}}));
}

// ---- streaming's patterns of rows ----

std::unique_ptr<OuterMethod> streaming(const std::string& pattern, std::int64_t fragments,
                                       const OuterMethod::Context& context) {
  return chosen_method(
      "streaming",
      {.numbers = {{"fragments", static_cast<double>(fragments)}}, .words = {{"pattern", pattern}}}, context);
}

TEST(StreamingRows, DealEveryRowOnceWithWholeSlicesAndEqualShares) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    const auto pick = [&](std::int64_t most) { return 1 + static_cast<std::int64_t>(random.below(most)); };
    const std::int64_t fragments = pick(4), slices = fragments * pick(3);
    std::vector<ParamSpec> specs{{"embed", {20 + pick(20), 3}},
                                 {"norm", {pick(9)}},
                                 {"mine", {4}, Role::local},
                                 {"mean", {40, 2}, Role::buffer}};
    std::vector<CutGroup> cuts;
    for (std::int64_t layer = 0; layer < pick(3); ++layer) {
      const std::string name = "blocks." + std::to_string(layer);
      const std::int64_t units = slices + pick(10);
      specs.push_back({name + ".up", {2 * units, pick(4)}});
      specs.push_back({name + ".down", {units, pick(4)}});
      cuts.push_back(
          {name, "mlp", "units", units, {{name + ".up"}, {name + ".up", 1, units}, {name + ".down"}}});
    }
    PartialSettings settings;
    settings.cut = "mlp";
    settings.slices = slices;
    const auto schedule = PlanSchedule::make(specs, cuts, settings, static_cast<std::int32_t>(slices));
    ASSERT_TRUE(schedule.ok()) << schedule.error().message;
    for (const std::string pattern : {"slices", "rows"}) {
      OuterMethod::Context context{.specs = specs, .steps = 12};
      if (pattern == "slices") context.slice_rows = schedule->slice_rows();
      const auto method = streaming(pattern, fragments, context);
      EXPECT_TRUE(method->problems().empty());
      const std::vector<RowSet> dealt = fragment_rows(*method, specs);
      Merger(specs, std::shared_ptr<OuterMethod>(streaming(pattern, fragments, context)));  // each row once
      double least = 1e9, most = 0;
      for (std::size_t f = 0; f < dealt.size(); ++f) {
        const auto count = static_cast<double>(elements_in(dealt[f], specs));
        least = std::min(least, count);
        most = std::max(most, count);
        for (std::int64_t s = 0; pattern == "slices" && s < slices; ++s) {
          const RowSet& slice = context.slice_rows[static_cast<std::size_t>(s)];
          const bool here = s * fragments / slices == static_cast<std::int64_t>(f);
          EXPECT_EQ(common_rows(slice, dealt[f]), here ? slice : RowSet{});
        }
      }
      // A vector or buffer, and a row of each range, is all that one can have more than another; slices too
      // differ by a unit.
      double slack = 80 + 9;
      for (const ParamSpec& spec : specs)
        slack += static_cast<double>(3 * spec.row_size()) * static_cast<double>(slices);
      EXPECT_LE(most - least, slack);
    }
  }
}

TEST(StreamingRows, OfOneFragmentAreTheWhole) {
  OuterMethod::Context context{.specs = small_specs()};
  const auto whole = Registry<OuterMethod>::builtin().make("diloco", context)->fragments();
  EXPECT_EQ(streaming("rows", 1, context)->fragments(), whole);
  context.slice_rows = small_schedule(4, 4).slice_rows();
  EXPECT_EQ(streaming("slices", 1, context)->fragments(), whole);
}

TEST(StreamingRows, SayWhereTheyDoNotFit) {
  OuterMethod::Context context{.specs = small_specs(), .steps = 100};
  EXPECT_THAT(streaming("slices", 2, context)->problems(),
              ::testing::ElementsAre(HasSubstr("partial.cut is \"none\"")));
  EXPECT_TRUE(streaming("rows", 2, context)->problems().empty());
  EXPECT_THAT(streaming("rows", 20, context)->problems(), ::testing::ElementsAre(HasSubstr("too few rows")));
  context.slice_rows = small_schedule(4, 4).slice_rows();
  EXPECT_TRUE(streaming("slices", 2, context)->problems().empty());
  EXPECT_THAT(streaming("slices", 3, context)->problems(),
              ::testing::ElementsAre(HasSubstr("does not divide partial.slices = 4")));
  EXPECT_THAT(streaming("rows", 2, context)->problems(),
              ::testing::ElementsAre(HasSubstr("\"slices\" follows")));
  context.rotates = true;
  EXPECT_THAT(streaming("slices", 2, context)->problems(), ::testing::ElementsAre(HasSubstr("rotate_every")));
}

}  // namespace
}  // namespace tessera
