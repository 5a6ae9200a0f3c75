// Codecs in a whole run over toy workers: with any of them, and error feedback both ways, the story does not
// depend on who dies; workers go from version to version by updates; bytes are those that were predicted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/comm/scratch_folder.h"
#include "tests/coordinator/rig.h"

namespace tessera {
namespace {

Wire wire(const std::string& codec, double feedback = 0) {
  return {Registry<Codec>::builtin().make(codec, {}), feedback};
}

struct Ways {
  const char* name;
  const char *up, *down;
  double up_feedback = 0, down_feedback = 0;
  std::int64_t rotate_every = 0;
};

class WireOfARun : public ::testing::TestWithParam<Ways> {
 protected:
  RigOptions options() const {
    const Ways& ways = GetParam();
    RigOptions options;
    options.rotate_every = ways.rotate_every;
    options.up = wire(ways.up, ways.up_feedback);
    options.down = wire(ways.down, ways.down_feedback);
    return options;
  }
  std::vector<std::string> undisturbed() {
    ScratchFolder folder;
    Rig rig(1, folder.path(), options());
    EXPECT_TRUE(rig.finish());
    return rig.story();
  }
};

TEST_P(WireOfARun, TheNumberOfWorkersAndTheDeathOfAnyChangeNoBit) {
  const std::vector<std::string> story = undisturbed();
  ASSERT_EQ(story.size(), 6u);
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    ScratchFolder first, second, third;
    Rig rig(2, first.path(), options());
    ASSERT_TRUE(rig.finish_while_workers_die(random));
    EXPECT_EQ(rig.story(), story);
    Rig other(3, second.path(), options());
    ASSERT_TRUE(other.finish_while_the_coordinator_dies(random));
    EXPECT_EQ(other.story(), story);
    RigOptions later = options();
    later.saves_later = true;
    Rig losing(2, third.path(), later);
    ASSERT_TRUE(losing.finish_while_the_coordinator_dies(random));
    EXPECT_EQ(losing.story(), story);
    EXPECT_EQ(losing.metrics.value(metric::recoveries, "resume"), 0) << "made again, without a roll-back";
  }
}

/// Tensor bytes alone of what the plan says travels in a round of four slots.
std::size_t predicted(const Wire& wire, const std::vector<RowSet>& sets) {
  std::size_t bytes = 0;
  for (const RowSet& rows : sets) {
    for (const ParamSpec& spec : small_specs()) {
      const auto ranges = rows.find(spec.name);
      if (ranges == rows.end()) continue;
      for (const Rows& range : ranges->second)
        bytes += wire.codec->encoded_bytes(static_cast<std::size_t>(range.count() * spec.row_size()));
    }
  }
  return bytes;
}

TEST_P(WireOfARun, WorkersFetchAllParametersOnceAndThenUpdates) {
  ScratchFolder folder;
  const RigOptions options = this->options();
  Rig rig(1, folder.path(), options);
  int all = 0, updates = 0;
  while (!rig.coordinator->done()) {
    if (!rig.workers.empty()) {
      all = rig.workers[0]->parameters_fetched;
      updates = rig.workers[0]->updates_fetched;
    }
    rig.pump();
  }
  EXPECT_EQ(all, options.down.rounds() ? 1 : 7);
  EXPECT_EQ(updates, options.down.rounds() ? 6 : 0);
}

TEST_P(WireOfARun, BytesAreThoseOfTheCodecAndHeaders) {
  ScratchFolder folder, exact_folder;
  const RigOptions options = this->options();
  RigOptions exact = options;
  exact.up = exact.down = Wire{};
  Rig rig(1, folder.path(), options), reference(1, exact_folder.path(), exact);
  ASSERT_TRUE(rig.finish() && reference.finish());
  std::vector<RowSet> up, down(1);
  for (std::int32_t slot = 0; slot < Rig::slots; ++slot) up.push_back(rig.schedule.owned({slot}, {0}));
  for (const ParamSpec& spec : small_specs()) add_rows(down[0], spec.name, {0, spec.rows()});
  std::size_t up_floats = 0, down_floats = 0;
  for (const RowSet& rows : up) up_floats += 4 * static_cast<std::size_t>(elements_in(rows, small_specs()));
  down_floats = 4 * static_cast<std::size_t>(elements_in(down[0], small_specs()));
  // Headers are rounded up to 64 bytes, and those of other types and sizes differ by a few.
  const std::size_t slack = 64;
  for (std::size_t i = 0; i < rig.rows().size(); ++i) {
    const auto row = rig.rows()[i], before = reference.rows()[i];
    const auto header_up = before["bytes_up"].get<double>() - static_cast<double>(up_floats),
               header_down = before["bytes_down"].get<double>() - static_cast<double>(down_floats);
    EXPECT_NEAR(row["bytes_up"].get<double>() - header_up, static_cast<double>(predicted(options.up, up)),
                static_cast<double>(slack * Rig::slots));
    EXPECT_NEAR(row["bytes_down"].get<double>() - header_down,
                static_cast<double>(predicted(options.down, down)), static_cast<double>(slack));
  }
}

INSTANTIATE_TEST_SUITE_P(Each, WireOfARun,
                         ::testing::Values(Ways{"fp32", "fp32", "fp32"}, Ways{"int8", "int8", "int8"},
                                           Ways{"int2_feedback", "int2", "int2", 1, 1},
                                           Ways{"bf16_up", "bf16", "fp32"}, Ways{"e3m0_down", "fp32", "e3m0"},
                                           Ways{"topk_feedback", "topk", "int8_sigma", 0.9, 0.5},
                                           Ways{"fp16_int4", "fp16", "int4"},
                                           Ways{"fp8_rotating", "fp8", "int2", 0, 0, 1}),
                         [](const auto& info) { return info.param.name; });

TEST(Wire, FeedbackOfEitherWayChangesWhatIsLearned) {
  std::set<std::string> last;
  for (const auto& [up, down] : {std::pair{0.0, 0.0}, {1.0, 0.0}, {0.0, 1.0}, {0.5, 0.0}, {0.0, 0.5}}) {
    ScratchFolder folder;
    RigOptions options;
    options.up = wire("int2", up);
    options.down = wire("int2", down);
    Rig rig(1, folder.path(), options);
    ASSERT_TRUE(rig.finish());
    last.insert(rig.story().back());
  }
  EXPECT_EQ(last.size(), 5u);
}

TEST(Wire, Fp32ByNameIsTheSameRunAsWithoutACodec) {
  ScratchFolder plain, named;
  RigOptions options;
  Rig first(1, plain.path(), options);
  options.up = options.down = wire("fp32");
  Rig second(1, named.path(), options);
  ASSERT_TRUE(first.finish() && second.finish());
  EXPECT_EQ(first.story(), second.story());
}

TEST(Wire, AnUpdateThatFailsIsFollowedByTheWholeVersion) {
  RigOptions options;
  options.down = wire("int8");
  ScratchFolder folder, other;
  Rig rig(1, folder.path(), options), undisturbed(1, other.path(), options);
  int all = 0, updates = 0;
  bool spoilt = false;
  for (int i = 0; i < 20000 && !rig.coordinator->done(); ++i) {
    if (!rig.workers.empty()) {
      ToyWorker& worker = *rig.workers[0];
      all = worker.parameters_fetched;
      updates = worker.updates_fetched;
      if (updates == 2 && !std::exchange(spoilt, true)) worker.spoil_update = true;
    }
    rig.pump();
  }
  EXPECT_EQ(all, 2) << "the first version, and the one whose update failed";
  EXPECT_EQ(updates, 6) << "and the next is an update again";
  ASSERT_TRUE(undisturbed.finish());
  EXPECT_EQ(rig.story(), undisturbed.story());
}

TEST(Wire, ASliceWithoutOwnersIsHeldBitForBitByCodecsWithoutAZero) {
  for (const char* name : {"int2", "int8_sigma"}) {
    SCOPED_TRACE(name);
    ScratchFolder folder;
    RigOptions options;
    options.mode = Mode::drop;
    options.up = options.down = wire(name, 1);
    Rig rig(2, folder.path(), options);
    const auto version = [&] { return rig.coordinator->state().ledger.fragments[0].version.value; };
    while (version() < 1) rig.pump();
    rig.workers.pop_back();
    const auto rows = [&](std::int64_t v) {
      const auto state = saved_state(folder.path(), Version{v});
      std::vector<std::vector<float>> held;
      for (const char* tensor : {"mlp.up", "mlp.bias", "momentum/mlp.up", "feedback/mlp.up"})
        held.push_back(floats(state->tensors.at(tensor).rows({4, 8})));
      return held;
    };
    const auto held = rows(1);
    while (version() < 4) rig.pump();
    EXPECT_EQ(rows(4), held);
  }
}

TEST(Wire, AContributionThatDoesNotFitItsCodecIsRejected) {
  ScratchFolder folder;
  RigOptions options;
  options.up = wire("int8");
  Rig rig(1, folder.path(), options);
  rig.workers[0]->up = wire("int4");
  for (int i = 0; i < 400 && !rig.coordinator->done(); ++i) rig.pump();
  EXPECT_GE(rig.metrics.value(metric::rejected_contributions, "contribution"), 1);
  ASSERT_TRUE(rig.coordinator->done());
  EXPECT_EQ(rig.coordinator->finish().code, ExitCode::failed) << "the same again is refused for good";
  EXPECT_THAT(rig.coordinator->finish().reason, ::testing::HasSubstr("int8"));
}

/// Even where the transport has found that the codes, taken for numbers, are finite.
TEST(Wire, ANotANumberIsFoundInEncodedChanges) {
  ScratchFolder folder;
  RigOptions options;
  options.claims_finite = true;
  options.up = options.down = wire("int2", 1);
  Rig rig(1, folder.path(), options);
  for (int i = 0; i < 10; ++i) rig.pump();
  rig.workers[0]->spoil_next = true;
  ASSERT_TRUE(rig.finish());
  EXPECT_EQ(rig.metrics.value(metric::rejected_contributions, "contribution"), 1);
  ScratchFolder other;
  Rig undisturbed(1, other.path(), options);
  ASSERT_TRUE(undisturbed.finish());
  EXPECT_EQ(rig.story(), undisturbed.story());
}

}  // namespace
}  // namespace tessera
