// Mode drop: owners of a slice go away, the others go on, they come back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/protocol_bench.h"

namespace tessera {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

/// Four slots; slots 0 and 2 own slice "even", 1 and 3 own slice "odd", all own the rest. There are four
/// workers, 11 to 14, and each has room for one.
CoordinatorSettings two_owners(std::int32_t quorum = 2) {
  CoordinatorSettings settings = bench_settings(4, 4);
  settings.mode = Mode::drop;
  settings.quorum = quorum;
  settings.rounds = Version{9};
  settings.deadline = std::chrono::seconds(5);
  settings.owned = [](SlotId k, Version) {
    return RowSet{{"w", {Rows{k.value % 2 * 4, k.value % 2 * 4 + 4}, Rows{8, 9}}}};
  };
  settings.slices = [](FragmentId, Version) {
    return std::vector<Slice>{{"even", {{"w", {Rows{0, 4}}}}, {0, 2}},
                              {"odd", {{"w", {Rows{4, 8}}}}, {1, 3}},
                              {"shared", {{"w", {Rows{8, 9}}}}, {0, 1, 2, 3}}};
  };
  return settings;
}

class DropBench : public ProtocolBench {
 public:
  explicit DropBench(CoordinatorSettings settings = two_owners()) : ProtocolBench(settings) {
    for (std::uint64_t worker : {11, 12, 13, 14}) join(worker);
  }
  std::vector<std::string> warnings() const {
    std::vector<std::string> texts;
    for (const action::Note& note : all<action::Note>()) {
      if (note.warning) texts.push_back(note.text);
    }
    return texts;
  }
  /// A contribution to the next version.
  void bring(std::int32_t slot) {
    const Version version = state.ledger.fragments[0].version;
    give(slot, static_cast<std::uint64_t>(100 * (version.value + 1) + slot), version);
  }
  /// Time passes, and workers 11 and 13 are heard.
  void pass(Duration time) {
    now += time;
    for (std::uint64_t worker : {11, 13}) from(worker, Heartbeat{});
    feed(event::Tick{});
  }
  /// Worker 14, which was frozen, is heard.
  void thaw() { from(14, Heartbeat{0, {{SlotId{3}, Attempt{1}}}, {{{}, Version{0}}}}); }
  std::vector<SealedRecord> sealed() const {
    std::vector<SealedRecord> records;
    for (const action::Merge& merge : all<action::Merge>()) records.push_back(merge.sealed);
    return records;
  }
  /// Version 1 is sealed without slot 1, whose worker dies, and slot 3, whose worker freezes.
  void lose_both_owners() {
    bring(0);
    bring(2);
    feed(event::WorkerDied{{12, 0}});
    for (int i = 0; i < 4; ++i) pass(std::chrono::milliseconds(1200));
    ASSERT_TRUE(sealed().empty()) << "the quorum is there, and the others have 5 s";
    pass(std::chrono::milliseconds(200));
    ASSERT_EQ(order(), "sealed MERGE") << "the decision is in the log before it acts";
  }
};

TEST(Drop, AMergeWithoutAnyOwnerOfASliceNamesItCountsItAndRaisesTheAlarm) {
  DropBench bench;
  bench.lose_both_owners();
  const SealedRecord first = bench.sealed()[0];
  EXPECT_THAT(first.left_out, ElementsAre(SlotId{1}, SlotId{3}));
  EXPECT_THAT(first.held, ElementsAre(HeldSlice{"odd", 1}));
  EXPECT_THAT(first.reason, HasSubstr("2 of 4 contributions came, and the others had 5"));
  EXPECT_THAT(bench.warnings(), ElementsAre(HasSubstr("version 1 closes without slots 1, 3"),
                                            AllOf(HasSubstr("no owner of odd"), HasSubstr("in a row: 1"))));
  bench.merged(Version{1});
  EXPECT_EQ(bench.order(), "commit Publish Publish ROW") << "nothing is leased to those who are gone";
  EXPECT_EQ(bench.all<action::Row>()[0].commit.held, first.held);
  EXPECT_EQ(bench.all<action::Row>()[0].commit.left_out, first.left_out);
}

TEST(Drop, TheOthersDoNotWaitAgainForThoseOfWhomNothingCanCome) {
  DropBench bench;
  bench.lose_both_owners();
  bench.merged(Version{1});
  bench.bring(0);
  EXPECT_EQ(bench.order(), "STAGE staged Taken");
  bench.bring(2);
  EXPECT_EQ(bench.order(), "STAGE staged Taken sealed MERGE");
  EXPECT_THAT(bench.sealed()[0].held, ElementsAre(HeldSlice{"odd", 2}));
}

TEST(Drop, AFrozenOwnerThatComesBackBeginsAnewAndOneOwnerIsEnough) {
  DropBench bench;
  bench.lose_both_owners();
  bench.thaw();
  EXPECT_THAT(bench.order(), Not(HasSubstr("lease"))) << "the version that it needs is not there yet";
  bench.merged(Version{1});
  EXPECT_EQ(bench.order(), "commit Publish Publish Publish ROW lease Grant");
  EXPECT_EQ(bench.sent<Grant>()[0].slot, SlotId{3});
  EXPECT_EQ(bench.sent<Grant>()[0].heads[0].version, Version{1});
  bench.bring(0);
  bench.bring(2);
  EXPECT_EQ(bench.order(), "STAGE staged Taken") << "slot 3 may bring something";
  bench.bring(3);
  EXPECT_EQ(bench.order(), "STAGE staged Taken sealed MERGE") << "slot 1 cannot";
  EXPECT_THAT(bench.sealed()[0].left_out, ElementsAre(SlotId{1}));
  EXPECT_TRUE(bench.sealed()[0].held.empty());
  EXPECT_THAT(bench.all<action::Note>().back().text,
              HasSubstr("owners of odd contribute again (merges without them: 1)"));
}

TEST(Drop, AnOwnerThatWasAwayForSeveralMergesIsBroughtUpToDateOnceWhenItIsHeardAgain) {
  DropBench bench;
  bench.lose_both_owners();
  bench.merged(Version{1});
  bench.bring(0);
  bench.bring(2);
  bench.merged(Version{2});
  bench.thaw();
  EXPECT_EQ(bench.order(), "lease Grant Publish HeartbeatAck") << "its unfinished work is in vain";
  EXPECT_EQ(bench.sent<Grant>()[0].attempt, Attempt{2});
  bench.from(14, Heartbeat{0, {{SlotId{3}, Attempt{2}}}, {{{}, Version{2}}}});
  EXPECT_EQ(bench.order(), "HeartbeatAck");
}

TEST(Drop, AReplacementTakesTheSlotsThatNobodyHoldsAndTheMergeIsFullAgain) {
  DropBench bench;
  bench.lose_both_owners();
  bench.merged(Version{1});
  bench.from(15, Hello{"build", "host", 1, 2, {}, {}});
  bench.from(15, Ready{{5, 6}, "numerics"});
  EXPECT_EQ(bench.order(), "lease Grant lease Revoke Grant") << "the frozen one is told";
  for (std::int32_t slot = 0; slot < 4; ++slot) bench.bring(slot);
  ASSERT_EQ(bench.sealed().size(), 1u);
  EXPECT_TRUE(bench.sealed()[0].left_out.empty());
  EXPECT_EQ(bench.sealed()[0].reason, "");
}

TEST(Drop, WithoutAQuorumTheRunStandsStillAndSaysSo) {
  DropBench bench(two_owners(3));
  bench.feed(event::WorkerDied{{12, 0}});
  EXPECT_THAT(bench.warnings(),
              Contains(HasSubstr("1 slot waits for a worker with room; merges close without")));
  bench.feed(event::WorkerDied{{14, 0}});
  EXPECT_THAT(bench.warnings(),
              Contains(AllOf(HasSubstr("2 slots wait"),
                             HasSubstr("needs 3 contributions, but the workers hold only 2"))));
  bench.bring(0);
  bench.bring(2);
  bench.pass(std::chrono::hours(1));
  EXPECT_TRUE(bench.sealed().empty());
}

TEST(Drop, WithoutADeadlineTheOthersHaveTwoLeasesOrHalfOfWhatTheQuorumTook) {
  CoordinatorSettings settings = two_owners();
  settings.deadline = {};
  for (const auto& [took, wanted] : {std::pair{1, 4}, std::pair{20, 10}}) {
    DropBench bench(settings);
    bench.now += std::chrono::seconds(took);
    bench.bring(0);
    bench.bring(2);
    EXPECT_EQ(drop_deadline(bench.state, bench.state.fragments[0]), bench.now + std::chrono::seconds(wanted));
  }
}

}  // namespace
}  // namespace tessera
