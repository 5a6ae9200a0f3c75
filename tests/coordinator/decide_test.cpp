// The pure core, decision by decision. Whole runs with faults are the simulator's (tests/sim).
#include "coordinator/decide.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/record_codec.h"
#include "tests/coordinator/protocol_bench.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Two slots on one worker, ready to contribute.
ProtocolBench two_slots(CoordinatorSettings settings = bench_settings(2, 1)) {
  ProtocolBench bench(settings);
  bench.join(11, 2);
  return bench;
}

TEST(Decide, AcknowledgesWhatIsStagedAndLoggedAndNothingBefore) {
  ProtocolBench bench = two_slots();
  bench.from(11, bench.offer(0, 100));
  EXPECT_EQ(bench.order(), "FETCH");
  bench.from(11, bench.offer(0, 100));
  EXPECT_EQ(bench.order(), "") << "the repetition of an offer that is on its way";
  bench.give(0, 100);
  EXPECT_EQ(bench.order(), "STAGE staged Taken");
  bench.from(11, bench.offer(0, 100));
  EXPECT_EQ(bench.order(), "Taken") << "the acknowledgement was lost";
}

TEST(Decide, SealsBeforeItMergesAndCommitsBeforeItPublishes) {
  ProtocolBench bench = two_slots();
  bench.give(1, 200);
  bench.give(0, 100);
  EXPECT_EQ(bench.order(), "STAGE staged Taken sealed MERGE");
  const SealedRecord sealed = bench.all<action::Merge>().at(0).sealed;
  ASSERT_EQ(sealed.contributions.size(), 2u);
  EXPECT_EQ(sealed.contributions[0].key.slot, SlotId{0}) << "slot order, not order of arrival";
  bench.merged(Version{1});
  EXPECT_EQ(bench.order(), "commit Publish ROW");
  const auto commit = std::get<CommitRecord>(bench.all<action::Append>()[0].record);
  EXPECT_EQ(commit.chain, chain_digest(chain_digest({}, {0, 7}, {}), {1, 7}, sealed.contributions));
  bench.merged(Version{1});
  EXPECT_THAT(bench.stale(), ElementsAre("merged"));
}

TEST(Decide, StaleMessagesChangeNothingAndAreCounted) {
  ProtocolBench bench = two_slots();
  const Ledger before = bench.state.ledger;
  auto why = [&](Header header, const Message& message) {
    bench.feed(event::Arrived{{11, 0}, header, message});
    EXPECT_EQ(bench.state.ledger, before);
    return bench.stale();
  };
  const Header good{bench.state.settings.job, bench.state.epoch, {11, 0}, 0};
  Header header = good;
  header.job = {9, 9};
  EXPECT_THAT(why(header, bench.offer(0, 1)), ElementsAre("job"));
  header = good;
  header.epoch = Epoch{0};
  EXPECT_THAT(why(header, bench.offer(0, 1)), ElementsAre("epoch"));
  EXPECT_TRUE(bench.sent<HeartbeatAck>().at(0).say_hello);
  header = good;
  header.incarnation = {};
  EXPECT_THAT(why(header, bench.offer(0, 1)), ElementsAre("incarnation"));
  Offer offer = bench.offer(0, 1);
  offer.key.attempt = Attempt{0};
  EXPECT_THAT(why(good, offer), ElementsAre("attempt"));
  EXPECT_THAT(why(good, bench.offer(0, 1, Version{1})), ElementsAre("version"));
  offer = bench.offer(0, 1);
  offer.key.slot = SlotId{2};
  EXPECT_THAT(why(good, offer), ElementsAre("malformed"));
  EXPECT_THAT(why(good, Taken{}), ElementsAre("not for coordinators"));
}

TEST(Decide, AWorkerThatKnowsANewerEpochFencesTheCoordinator) {
  ProtocolBench bench = two_slots();
  bench.feed(event::Arrived{{11, 0}, Header{bench.state.settings.job, Epoch{2}, {11, 0}, 0}, Heartbeat{}});
  ASSERT_EQ(bench.order(), "FINISH");
  EXPECT_EQ(bench.all<action::Finish>()[0].code, ExitCode::fenced);
}

TEST(Decide, TheSameIdentityWithOtherBytesRaisesTheAlarm) {
  ProtocolBench bench = two_slots();
  bench.give(0, 100);
  bench.from(11, bench.offer(0, 101));
  EXPECT_EQ(bench.order(), "rejected lease Grant Rejected");
  EXPECT_EQ(bench.state.ledger.fragments[0].staged.at(0).record.digest, (Digest{100, 1}))
      << "what was taken stands";
  EXPECT_EQ(bench.sent<Grant>()[0].slot_state, (Digest{100, 2})) << "the slot goes back to it";
}

TEST(Decide, AContributionThatIsNotFiniteIsNamedRejectedAndMadeAgain) {
  ProtocolBench bench = two_slots();
  bench.refuse(1, 666);
  EXPECT_EQ(bench.order(), "rejected lease Grant Rejected");
  EXPECT_EQ(bench.sent<Rejected>()[0].tensor, "mlp.up");
  EXPECT_THAT(bench.all<action::Note>()[0].text, HasSubstr("slot 1, tensor mlp.up: not finite"));
  bench.give(1, 200);
  EXPECT_EQ(bench.order(), "STAGE staged Taken") << "bad hardware: other bytes the second time";
}

TEST(Decide, TheSameBadContributionTwiceStopsTheRun) {
  ProtocolBench bench = two_slots();
  bench.refuse(1, 666);
  bench.refuse(1, 666);
  EXPECT_EQ(bench.order(), "rejected Stop");
  EXPECT_EQ(bench.sent<Stop>()[0].code, static_cast<int>(ExitCode::failed));
  EXPECT_THAT(bench.sent<Stop>()[0].reason, HasSubstr("the model is the problem: slot 1, tensor mlp.up"));
}

TEST(Decide, DropModeClosesAtQuorumAndDeadlineAndNamesWhoWasLeftOut) {
  CoordinatorSettings settings = bench_settings(3, 1);
  settings.mode = Mode::drop;
  ProtocolBench bench(settings);
  bench.join(11, 3);
  bench.give(0, 100);
  bench.give(2, 300);
  EXPECT_TRUE(bench.all<action::Merge>().empty()) << "the quorum is there, the grace is not over";
  bench.now += settings.lease / 2;
  bench.from(11, Heartbeat{});
  bench.now = drop_deadline(bench.state, bench.state.fragments[0]);
  bench.from(11, Heartbeat{});
  bench.feed(event::Tick{});
  EXPECT_EQ(bench.order(), "sealed MERGE") << "the decision is in the log before it acts";
  EXPECT_THAT(bench.all<action::Merge>()[0].sealed.left_out, ElementsAre(SlotId{1}));
  bench.merged(Version{1});
  EXPECT_EQ(bench.order(), "commit Publish ROW lease Grant");
  EXPECT_EQ(bench.sent<Grant>()[0].slot, SlotId{1});
  EXPECT_EQ(bench.sent<Grant>()[0].heads[0].version, Version{1});
}

TEST(Decide, ARestartRedoesWhatWasSealedAndConfirmsTheLeases) {
  ProtocolBench first = two_slots();
  first.give(0, 100);
  first.give(1, 200);
  ProtocolBench second(bench_settings(2, 1), first.state.ledger, Epoch{2});
  EXPECT_EQ(second.order(), "open MERGE");
  second.merged(Version{1});
  EXPECT_EQ(second.order(), "commit ROW");
  second.from(11, Hello{"build", "host", 1, 2, {}, {{SlotId{0}, Attempt{1}}, {SlotId{1}, Attempt{1}}}});
  EXPECT_EQ(second.order(), "Welcome");
  second.from(11, Ready{{5, 6}, "numerics"});
  EXPECT_EQ(second.order(), "Grant Grant");
  EXPECT_EQ(second.sent<Grant>()[0].attempt, Attempt{1}) << "the same lease goes on";
}

TEST(Decide, ALostStagedContributionIsMadeAgainByANewAttempt) {
  ProtocolBench first = two_slots();
  first.give(0, 100);
  State state(bench_settings(2, 1), first.state.ledger);
  const FragmentHead head{{}, Version{0}, {{0, 8}, 4, ""}, state.ledger.fragments[0].chain};
  decide(state, event::Start{Epoch{2}, {head}, {{100, 1}}}, Instant{});
  EXPECT_TRUE(state.ledger.fragments[0].staged.empty());
  EXPECT_EQ(state.ledger.slots[0].attempt, Attempt{2});
  EXPECT_TRUE(state.ledger.slots[0].state.is_zero());
}

TEST(Decide, TheNextMergeWaitsForADueEvaluation) {
  CoordinatorSettings settings = bench_settings(2, 1);
  settings.evaluate = true;
  settings.eval_every = 1;
  ProtocolBench bench = two_slots(settings);
  bench.give(0, 100);
  bench.give(1, 200);
  bench.merged(Version{1});
  EXPECT_EQ(bench.order(), "commit Publish") << "the row waits too";
  EXPECT_TRUE(bench.sent<Publish>()[0].evaluate);
  bench.give(0, 101, Version{1});
  bench.give(1, 201, Version{1});
  EXPECT_EQ(bench.order(), "STAGE staged Taken");
  bench.from(11, Heartbeat{0, {{SlotId{0}, Attempt{1}}, {SlotId{1}, Attempt{1}}}, {{{}, Version{1}}}});
  EXPECT_EQ(bench.order(), "Publish HeartbeatAck") << "asked again";
  bench.from(11, Evaluated{Version{1}, 2.5, 1, 0, 0});
  EXPECT_EQ(bench.order(), "evaluated ROW sealed MERGE");
  bench.from(11, Evaluated{Version{1}, 2.5, 1, 0, 0});
  EXPECT_THAT(bench.stale(), ElementsAre("evaluated"));
}

TEST(Decide, DrainingCheckpointsAndStopsResumable) {
  ProtocolBench bench = two_slots();
  bench.give(0, 100);
  bench.give(1, 200);
  bench.merged(Version{1});
  bench.feed(event::Drain{"Ctrl-C"});
  EXPECT_EQ(bench.order(), "CHECKPOINT Stop");
  EXPECT_EQ(bench.sent<Stop>()[0].code, static_cast<int>(ExitCode::resumable));
  bench.feed(event::Drain{"Ctrl-C"});
  EXPECT_EQ(bench.order(), "");
  bench.from(11, Leave{"stopped"});
  EXPECT_EQ(bench.order(), "FINISH");
}

TEST(Decide, AfterTheLastVersionEverybodyIsToldAndWaitedForALeaseAtMost) {
  ProtocolBench bench = two_slots();
  for (std::int64_t v = 0; v < 3; ++v) {
    bench.give(0, 100 + v, Version{v});
    bench.give(1, 200 + v, Version{v});
    bench.merged(Version{v + 1});
  }
  EXPECT_EQ(bench.order(), "commit Publish ROW CHECKPOINT Stop");
  EXPECT_TRUE(bench.sent<Publish>()[0].last);
  bench.from(11, Heartbeat{});
  EXPECT_EQ(bench.order(), "Stop") << "the first was lost";
  bench.now = wake_at(bench.state);
  bench.feed(event::Tick{});
  EXPECT_EQ(bench.all<action::Finish>().at(0).code, ExitCode::done);
}

TEST(Decide, EveryRecordReadsBackFromItsText) {
  StagedRecord staged{{SlotId{1}, {}, Version{2}, Attempt{3}}, {4, 5}, 6, {7, 8}, {}};
  staged.work = {10, 1280, 33.25, 1280, 5, 15, 0.1, 0.01, 0.2, 1.5};
  const std::vector<Record> records{
      OpenRecord{Epoch{2}, {1, 2}, 4, 1},
      FactsRecord{{{3, 4}, "torch 2.11, 1 thread"}},
      LeaseRecord{SlotId{3}, Attempt{2}, {5, 6}, "its holder \"died\""},
      staged,
      LostRecord{staged.key, "damaged"},
      RejectedRecord{staged.key, {9, 9}, "mlp.up", "not finite"},
      FreshRecord{SlotId{1}, "lost"},
      SealedRecord{{}, Version{2}, {staged}, {SlotId{0}}},
      CommitRecord{{}, Version{3}, {1, 1}, {2, 2}, true, {staged.work, 1, 100, 200, 1.25, 0.5, 7}},
      EvaluatedRecord{{Version{3}, 3.5, 100, 400, 80}},
      RollbackRecord{{{Version{2}, {1, 1}}}, {{2, 2}, {3, 3}}, "a state is lost"}};
  EXPECT_EQ(records.size(), std::variant_size_v<Record>);
  for (const Record& record : records) {
    const Result<Record> back = decode_record(record_type(record), encode_record(record));
    ASSERT_TRUE(back.ok()) << encode_record(record);
    EXPECT_TRUE(*back == record) << encode_record(record);
    EXPECT_FALSE(decode_record(record_type(record), "{}").ok());
  }
  EXPECT_FALSE(decode_record(99, "{}").ok());
}

}  // namespace
}  // namespace tessera
