// How often a merge makes its deltas, and that it changes nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/pieces.h"
#include "coordinator/merge.h"
#include "optim/outer_parts.h"
#include "tests/coordinator/small_model.h"

namespace tessera {
namespace {

/// DiLoCo that reads deltas, as it need not.
class ReadsDeltas final : public LikeDiLoCo {
 public:
  using LikeDiLoCo::LikeDiLoCo;
  bool needs_deltas() const override { return true; }
};

/// Cut parameters, buffers, rows of many owners, one, and none; with and without an automatic rate.
TEST(Merger, WhetherDeltasAreStoredOrMadeAsNeededChangesNoBit) {
  const std::uint64_t seed = 3;
  const std::vector<ParamSpec> specs{
      {"wide", {3, 5000}}, {"tall", {700, 3}}, {"bias", {40}}, {"mean", {4}, Role::buffer}};
  for (const std::int32_t slots : {1, 3, 7}) {
    for (const double lr : {0.7, std::numeric_limits<double>::quiet_NaN()}) {
      SCOPED_TRACE(testing::Message() << slots << " slots, lr " << lr);
      OuterMethod::Context context = context_of(specs, "nesterov", lr, 0.9);
      context.slots = slots;
      const MergeSettings settings{.cut = {"tall"}, .threads = 3};
      const Merger lean(specs, Registry<OuterMethod>::builtin().make("diloco", context), settings);
      const Merger storing(specs, std::make_shared<ReadsDeltas>(context), settings);
      TensorMap theta = random_tensors(specs, seed), other = clone_of(theta);
      TensorMap state = lean.initial_state(), others = clone_of(state);
      for (std::int64_t version = 1; version <= 3; ++version) {
        std::vector<MergeInput> inputs;
        for (std::int32_t k = 0; k < slots; ++k) {
          TensorMap pieces = random_tensors(
              specs, seed + 10 * static_cast<std::uint64_t>(version) + static_cast<std::uint64_t>(k));
          const Rows part{100 * k, 100 * k + 250};  // overlapping; the last rows are nobody's, but for 7
          const HostTensor rows = pieces.at("tall").rows({part.begin, std::min<std::int64_t>(part.end, 700)});
          pieces.erase("tall");
          pieces.emplace(piece_name("tall", {part.begin, std::min<std::int64_t>(part.end, 700)}, 700), rows);
          inputs.push_back({SlotId{k}, std::move(pieces)});
        }
        const MergeOutcome a = lean.merge(FragmentId{0}, Version{version}, inputs, theta, state);
        const MergeOutcome b = storing.merge(FragmentId{0}, Version{version}, inputs, other, others);
        EXPECT_EQ(a.outer, b.outer);
        EXPECT_EQ(a.delta_norm, b.delta_norm);
        EXPECT_EQ(a.uncovered, b.uncovered);
        EXPECT_TRUE(bit_equal(theta, other));
        EXPECT_TRUE(bit_equal(state, others));
      }
    }
  }
}

TEST(Merger, DeltasAreMadeAsOftenAsTheStepNeedsThem) {
  const double automatic = std::numeric_limits<double>::quiet_NaN();
  const std::vector<ParamSpec> specs{{"w", {4, 2}}};
  const auto deltas = [&](double lr, std::optional<OuterStep> cut, bool cuts, double decay = 0) {
    OuterMethod::Context context = context_of(specs, "nesterov", lr, 0.9);
    context.cut = cut;
    context.weight_decay = decay;
    if (cuts) context.slice_rows = {{{"w", {{0, 4}}}}};
    return deltas_of(*Registry<OuterMethod>::builtin().make("diloco", context), {});
  };
  EXPECT_EQ(deltas(0.7, OuterStep{0.3, 0.5}, true), Deltas::made_once);
  EXPECT_EQ(deltas(0.7, OuterStep{automatic, 0.5}, false), Deltas::made_once) << "nothing is cut";
  EXPECT_EQ(deltas(0.7, OuterStep{automatic, 0.5}, true), Deltas::made_twice);
  EXPECT_EQ(deltas(automatic, {}, false), Deltas::made_twice);
  EXPECT_EQ(deltas(0.7, {}, false, 0.1), Deltas::stored) << "decay comes between the sums and the step";
  EXPECT_TRUE(are_stored(Deltas::made_twice, 6.5));
  EXPECT_FALSE(are_stored(Deltas::made_once, 6.5));
}

}  // namespace
}  // namespace tessera
