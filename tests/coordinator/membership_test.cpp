// Who holds which slot, and when that changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/protocol_bench.h"

namespace tessera {
namespace {

std::vector<std::uint64_t> holders(const State& state) {
  std::vector<std::uint64_t> holders;
  for (const SlotLedger& slot : state.ledger.slots)
    holders.push_back(slot.attempt.value > 0 ? slot.holder.high : 0);
  return holders;
}

TEST(Membership, SlotsAreHandedOutEvenlyOnceAllExpectedWorkersAreReady) {
  ProtocolBench bench(bench_settings(5, 2));
  bench.join(11, 4);
  EXPECT_THAT(holders(bench.state), ::testing::Each(0));
  bench.join(22, 4);
  EXPECT_THAT(holders(bench.state), ::testing::ElementsAre(11, 22, 11, 22, 11));
  EXPECT_EQ(bench.sent<Grant>().size(), 5u);
}

TEST(Membership, WorkersThatDoNotComeAreWaitedForFifteenLeases) {
  ProtocolBench bench(bench_settings(2, 2));
  bench.join(11, 2);
  for (int i = 0; i < 14; ++i) {
    bench.now += bench.state.settings.lease;
    bench.from(11, Heartbeat{});
  }
  EXPECT_THAT(holders(bench.state), ::testing::Each(0));
  bench.now = wake_at(bench.state);
  bench.feed(event::Tick{});
  bench.from(11, Heartbeat{});
  EXPECT_THAT(holders(bench.state), ::testing::ElementsAre(11, 11));
}

TEST(Membership, CapacityIsRespectedAndFreeSlotsWait) {
  ProtocolBench bench(bench_settings(3, 1));
  bench.join(11, 2);
  EXPECT_THAT(holders(bench.state), ::testing::ElementsAre(11, 11, 0));
  bench.join(22, 2);
  EXPECT_THAT(holders(bench.state), ::testing::ElementsAre(11, 11, 22));
}

TEST(Membership, ASilentWorkerLosesItsSlotsAfterOneLease) {
  ProtocolBench bench(bench_settings(2, 2));
  bench.join(11, 2);
  bench.join(22, 2);
  bench.now += bench.state.settings.lease / 2;
  bench.from(22, Heartbeat{0, {{SlotId{1}, Attempt{1}}}, {}});
  EXPECT_EQ(wake_at(bench.state), Instant{} + bench.state.settings.lease);
  bench.now = wake_at(bench.state);
  bench.feed(event::Tick{});
  EXPECT_THAT(holders(bench.state), ::testing::ElementsAre(22, 22));
  EXPECT_EQ(bench.state.ledger.slots[0].attempt, Attempt{2});
  // Its messages of the old attempt change nothing, and it is told so.
  Offer late = bench.offer(0, 1);
  late.key.attempt = Attempt{1};
  bench.from(11, late);
  EXPECT_THAT(bench.stale(), ::testing::ElementsAre("holder"));
  EXPECT_EQ(bench.sent<Revoke>().size(), 1u);
}

TEST(Membership, ADeadWorkerIsReplacedAtOnceAndNeverHeardAgain) {
  ProtocolBench bench(bench_settings(1, 1));
  bench.join(11);
  bench.feed(event::WorkerDied{{11, 0}});
  bench.join(22);
  EXPECT_THAT(holders(bench.state), ::testing::ElementsAre(22));
  bench.from(11, Heartbeat{});
  EXPECT_THAT(bench.stale(), ::testing::ElementsAre("dead worker"));
}

TEST(Membership, AHeartbeatRepairsWhatTheWorkerMissed) {
  ProtocolBench bench(bench_settings(2, 1));
  bench.join(11, 2);
  bench.from(11, Heartbeat{0, {{SlotId{0}, Attempt{1}}, {SlotId{1}, Attempt{1}}}, {{{}, Version{0}}}});
  EXPECT_EQ(bench.order(), "HeartbeatAck");
  bench.from(11, Heartbeat{0, {{SlotId{0}, Attempt{1}}}, {{{}, Version{0}}}});
  EXPECT_EQ(bench.order(), "Grant HeartbeatAck");
  bench.from(22, Heartbeat{});
  ASSERT_EQ(bench.sent<HeartbeatAck>().size(), 1u);
  EXPECT_TRUE(bench.sent<HeartbeatAck>()[0].say_hello);
}

TEST(Membership, WorkersOfAnotherBuildRecipeOrCorpusAreRefused) {
  ProtocolBench bench(bench_settings(2, 1));
  bench.join(11);
  auto refusal = [&]() -> std::string {
    const auto refused = bench.sent<Refused>();
    return refused.size() == 1 && refused[0].code == 78 ? refused[0].reason : "not refused";
  };
  bench.from(22, Hello{"other build", "host", 1, 1, {}, {}});
  EXPECT_THAT(refusal(), ::testing::HasSubstr("build 'other build'"));
  bench.from(22, Hello{"build", "host", 1, 1, {9, 9}, {}});
  EXPECT_THAT(refusal(), ::testing::HasSubstr("another recipe"));
  bench.from(22, Hello{"build", "host", 1, 1, {}, {}});
  bench.from(22, Ready{{9, 9}, "numerics"});
  EXPECT_THAT(refusal(), ::testing::HasSubstr("data are not the run's"));
  bench.from(22, Hello{"build", "host", 1, 1, {}, {}});
  bench.from(22, Ready{{5, 6}, "other threads"});
  EXPECT_THAT(refusal(), ::testing::HasSubstr("'other threads'"));
  EXPECT_THAT(holders(bench.state), ::testing::ElementsAre(11, 0)) << "the running worker is not disturbed";
}

}  // namespace
}  // namespace tessera
