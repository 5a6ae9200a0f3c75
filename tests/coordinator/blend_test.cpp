// Weights, scales and radial-directional merging against their definitions, and contributions that are late.
#include "coordinator/blend.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/random.h"
#include "coordinator/merge.h"
#include "tests/coordinator/protocol_bench.h"

namespace tessera {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

/// Weighs by `units`, scales by `steps`, and merges radially all but "embed".
class Judge final : public OuterMethod {
 public:
  std::vector<std::vector<std::string>> fragments() const override { return {{"w", "embed"}}; }
  Due due(std::int64_t) const override { return {}; }
  std::int64_t steps_per_merge() const override { return 1; }
  bool weighs() const override { return true; }
  Influence influence(const Brought& brought) const override {
    return {.weight = brought.units, .scale = static_cast<double>(brought.steps)};
  }
  Blend blend(const ParamSpec& spec) const override {
    return spec.name == "embed" ? Blend::mean : Blend::radial;
  }
  Payload payload() const override { return Payload::delta; }
  std::vector<std::string> state_names() const override { return {}; }
  OuterReport apply(std::int64_t, std::span<const Update> updates) const override {
    for (const Update& update : updates) {
      for (std::size_t i = 0; i < update.theta.size(); ++i)
        update.theta[i] -= static_cast<float>(update.delta[i]);
    }
    return {};
  }
};

HostTensor filled(std::vector<std::int64_t> shape, KeyedRandom& random) {
  HostTensor tensor = HostTensor::zeros(DType::f32, std::move(shape));
  for (float& value : tensor.as<float>()) value = static_cast<float>(random.normal());
  return tensor;
}

struct Blended5 {
  std::vector<double> change;
  std::vector<std::int32_t> owners;
  std::vector<double> squares;
};
Blended5 blended(const ParamSpec& spec, const std::vector<MergeInput>& inputs,
                 std::span<const float> start = {}) {
  std::vector<const MergeInput*> ordered;
  for (const MergeInput& input : inputs) ordered.push_back(&input);
  const auto elements = static_cast<std::size_t>(spec.elements());
  const auto rows = static_cast<std::size_t>(spec.rows());
  Blended5 out{std::vector<double>(elements), std::vector<std::int32_t>(rows), std::vector<double>(rows)};
  blend(Judge(), spec, {0, spec.rows()}, ordered, start, {out.change, out.owners, out.squares});
  return out;
}

/// Three contributions of a whole tensor: (3, 4), (0, 2) and (0, 0), weights 1, 2, 1.
/// Lengths 5, 2, 0: mean (5 + 4 + 0) / 4 = 2.25. Directions (0.6, 0.8) + 2 (0, 1), which is (0.6, 2.8).
TEST(Blend, RadialGivesTheNumbersWorkedOutByHand) {
  const auto input = [](std::int32_t slot, float a, float b, double weight) {
    MergeInput made{SlotId{slot}, {}, {.steps = 1, .units = weight}};
    made.pieces.emplace("w", HostTensor::of<float>(DType::f32, {2}, {a, b}));
    return made;
  };
  const Blended5 out = blended({"w", {2}}, {input(0, 3, 4, 1), input(1, 0, 2, 2), input(2, 0, 0, 1)});
  const double direction = std::hypot(0.6, 2.8);
  EXPECT_THAT(out.change, ElementsAre(DoubleNear(2.25 * 0.6 / direction, 1e-12),
                                      DoubleNear(2.25 * 2.8 / direction, 1e-12)));
  EXPECT_THAT(out.owners, ElementsAre(3, 3));
}

/// Brute force in fp64: rows 0 and 1 are slot 0's and 2's, rows 2 and 3 slot 1's and 2's, 4 nobody's.
TEST(Blend, AgreesWithItsDefinitionRowSetByRowSet) {
  KeyedRandom random(7);
  for (int round = 0; round < 50; ++round) {
    for (const char* name : {"w", "embed"}) {
      const ParamSpec spec{name, {5, 3}};
      const Rows ranges[] = {{0, 2}, {2, 4}, {0, 4}};
      std::vector<MergeInput> inputs;
      std::vector<float> start(15);
      for (float& value : start) value = static_cast<float>(random.normal());
      const bool from_start = round % 2 == 0;
      for (std::int32_t k = 0; k < 3; ++k) {
        MergeInput input{SlotId{k}, {}, {.steps = 1 + k, .units = random.uniform()}};
        input.pieces.emplace(piece_name(name, ranges[k], 5), filled({ranges[k].count(), 3}, random));
        inputs.push_back(std::move(input));
      }
      const Blended5 out =
          blended(spec, inputs, from_start ? std::span<const float>(start) : std::span<const float>());
      for (const Rows& run : {Rows{0, 2}, Rows{2, 4}}) {
        std::vector<double> mean(6), direction(6);
        double weights = 0, length = 0;
        for (std::int32_t k : {run.begin == 0 ? 0 : 1, 2}) {
          const MergeInput& input = inputs[static_cast<std::size_t>(k)];
          std::vector<double> d(6);
          double norm = 0;
          for (std::size_t i = 0; i < 6; ++i) {
            const auto at = static_cast<std::size_t>((run.begin - ranges[k].begin) * 3) + i;
            const double value = static_cast<double>(input.pieces.begin()->second.as<float>()[at]);
            const double begin = static_cast<double>(start[static_cast<std::size_t>(run.begin * 3) + i]);
            d[i] = static_cast<double>(input.brought.steps) * (from_start ? begin - value : value);
            norm += d[i] * d[i];
          }
          norm = std::sqrt(norm);
          weights += input.brought.units;
          length += input.brought.units * norm;
          for (std::size_t i = 0; i < 6; ++i) {
            mean[i] += input.brought.units * d[i];
            direction[i] += input.brought.units * d[i] / norm;
          }
        }
        double norm = 0;
        for (double value : direction) norm += value * value;
        for (std::size_t i = 0; i < 6; ++i) {
          const double expected = std::string(name) == "embed"
                                      ? mean[i] / weights
                                      : direction[i] / std::sqrt(norm) * length / weights;
          EXPECT_NEAR(out.change[static_cast<std::size_t>(run.begin * 3) + i], expected, 1e-12);
        }
      }
      EXPECT_THAT(out.owners, ElementsAre(2, 2, 2, 2, 0));
      for (std::size_t i = 12; i < 15; ++i) EXPECT_EQ(out.change[i], 0);
    }
  }
}

TEST(Blend, ASingleContributionPassesThroughAndWeightsOfZeroCountTheSame) {
  MergeInput one{SlotId{0}, {}, {.steps = 1, .units = 5}};
  one.pieces.emplace("embed", HostTensor::of<float>(DType::f32, {2}, {0.1f, -7}));
  EXPECT_THAT(blended({"embed", {2}}, {one}).change, ElementsAre(static_cast<double>(0.1f), -7.0));
  MergeInput other{SlotId{1}, {}, {.steps = 1, .units = 0}};
  other.pieces.emplace("embed", HostTensor::of<float>(DType::f32, {2}, {0.3f, 1}));
  one.brought.units = 0;
  EXPECT_THAT(blended({"embed", {2}}, {one, other}).change, ElementsAre(DoubleNear(0.2, 1e-7), -3.0));
}

// ---- who is late ----

CoordinatorSettings late_settings(std::int32_t arrivals) {
  CoordinatorSettings settings = bench_settings(2, 2);
  settings.takes_late = true;
  settings.arrivals_per_merge = arrivals;
  settings.rounds = Version{9};
  if (arrivals == 0) {
    settings.mode = Mode::drop;
    settings.quorum = 1;
    settings.window = GraceWindow{1, 10, 4};
  }
  return settings;
}

TEST(Late, AWindowLastsAsLongAsTheQuickestSlotDoesNotNotice) {
  StagedEntry slow{}, quick{};
  slow.record.work = {.steps = 10, .compute_seconds = 30};
  quick.record.work = {.steps = 10, .compute_seconds = 20};
  const GraceWindow window{0.5, 10, 4};
  const auto grace = [&](double quorum, double merge) {
    return seconds(grace_of(window, {slow, quick}, from_seconds(quorum), from_seconds(merge)));
  };
  EXPECT_DOUBLE_EQ(grace(1, 2), 0.5 * (4 * 2 - 1 - 2));
  EXPECT_DOUBLE_EQ(grace(6, 3), 0);  // nobody has time left
  EXPECT_DOUBLE_EQ(seconds(grace_of({0.5, 1.5, 4}, {slow, quick}, {}, {})), 1.5);
}

TEST(Late, AMergeClosesAfterItsWindowAndTheNextOneTakesWhoCameTooLate) {
  ProtocolBench bench(late_settings(0));
  for (std::uint64_t worker : {11, 12}) bench.join(worker);
  // Its steps took 1 s each: the window is 4 s.
  Offer offer = bench.offer(0, 100);
  offer.work = {.steps = 3, .compute_seconds = 3};
  bench.from(11, offer);
  bench.feed(event::Fetched{offer.key, offer.contribution.digest, event::Fetched::Outcome::good, "", ""});
  EXPECT_THAT(bench.all<action::Merge>(), IsEmpty());
  EXPECT_EQ(wake_at(bench.state),
            std::min(bench.now + std::chrono::seconds(4), bench.now + bench.state.settings.lease));
  for (int i = 0; i < 4; ++i) {
    EXPECT_THAT(bench.all<action::Merge>(), IsEmpty()) << i << " s";
    bench.now += std::chrono::seconds(1);
    for (std::uint64_t worker : {11, 12}) bench.from(worker, Heartbeat{});
    bench.feed(event::Tick{});
  }
  ASSERT_THAT(bench.all<action::Merge>(), SizeIs(1));
  EXPECT_THAT(bench.all<action::Merge>()[0].sealed.left_out, ElementsAre(SlotId{1}));
  bench.merged(Version{1});
  // Slot 1 keeps its lease, and brings what it changed since version 0.
  EXPECT_EQ(bench.state.ledger.slots[1].attempt.value, 1);
  bench.give(1, 200, Version{0});
  ASSERT_THAT(bench.all<action::Merge>(), SizeIs(1));  // its steps took no time, so nobody has any left
  const SealedRecord second = bench.all<action::Merge>()[0].sealed;
  EXPECT_EQ(second.version.value, 1);
  ASSERT_THAT(second.contributions, SizeIs(1));
  EXPECT_EQ(second.contributions[0].key, (MergeKey{SlotId{1}, {}, Version{0}, Attempt{1}}));
  bench.merged(Version{2});
  // What comes after the last version is not asked for.
  EXPECT_EQ(bench.state.ledger.fragments[0].version.value, 2);
}

TEST(Late, EveryArrivalMakesAVersionAndIsAcknowledgedWithIt) {
  ProtocolBench bench(late_settings(1));
  for (std::uint64_t worker : {11, 12}) bench.join(worker);
  bench.give(0, 100);
  EXPECT_EQ(bench.order(), "STAGE staged sealed MERGE");
  bench.give(1, 200, Version{0});
  EXPECT_EQ(bench.order(), "STAGE staged");  // the merge before is not done
  bench.from(11, bench.offer(0, 100));       // asked again, nobody is told that it is safe to go on
  EXPECT_EQ(bench.order(), "");
  bench.merged(Version{1});
  EXPECT_EQ(bench.order(), "commit Publish Publish ROW Taken sealed MERGE");
  EXPECT_THAT(bench.sent<Taken>()[0].key.slot, SlotId{0});
  bench.merged(Version{2});
  const auto commits = bench.all<action::Append>();
  ASSERT_THAT(commits, SizeIs(1));
  EXPECT_THAT(std::get<CommitRecord>(commits[0].record).totals.staleness, ElementsAre(1));
  EXPECT_THAT(bench.sent<Taken>()[0].key.slot, SlotId{1});
  // One that was not told asks again, and is.
  bench.from(12, bench.offer(1, 200));
  EXPECT_EQ(bench.order(), "Taken");
}

TEST(Late, SlowSlotsAreGivenFewerSteps) {
  CoordinatorSettings settings = late_settings(1);
  settings.dynamic = DynamicSteps{10, 3};
  ProtocolBench bench(settings);
  for (std::uint64_t worker : {11, 12}) bench.join(worker);
  const auto given = [&](std::int32_t slot, std::uint64_t content, std::int64_t version, double seconds) {
    Offer offer = bench.offer(slot, content, Version{version});
    offer.work = {.steps = 5, .compute_seconds = seconds};
    bench.from(bench.state.ledger.slots[static_cast<std::size_t>(slot)].holder.high, offer);
    bench.feed(event::Fetched{offer.key, offer.contribution.digest, event::Fetched::Outcome::good, "", ""});
    bench.merged(Version{bench.state.ledger.fragments[0].version.value + 1});
    return bench.sent<Taken>().at(0).steps;
  };
  EXPECT_EQ(given(0, 100, 0, 5), 10);   // nobody else's speed is known
  EXPECT_EQ(given(1, 200, 0, 10), 5);   // half as fast
  EXPECT_EQ(given(1, 300, 2, 6), 8);    // 1 s against 1.2 s: floor(8.33)
  EXPECT_EQ(given(1, 400, 3, 50), 3);   // the least
  EXPECT_EQ(given(0, 500, 1, 100), 5);  // slot 1, at 10 s a step, is the quickest now
  // Both slots on one worker take turns: it is not slower than itself.
  bench.feed(event::WorkerDied{{12, 0}});
  bench.join(13, 2);
  bench.feed(event::WorkerDied{{11, 0}});
  EXPECT_EQ(bench.sent<Grant>().at(0).steps, 5);
}

}  // namespace
}  // namespace tessera
