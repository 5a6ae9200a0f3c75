// What a slot does that merges were made without, in mode drop: the machine alone, and what the inner
// optimizer counts afterwards.
#include <gmock/gmock.h>

#include "tests/worker/step_fixture.h"
#include "worker/protocol/worker_machine.h"

namespace tessera::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
namespace act = worker_action;

/// One slot of streaming with two fragments, H = 4: fragment 0 is pushed after steps 1, 5, ... and adopted
/// before 2, 6, ...; fragment 1 after 3, 7, ... and before 4, 8, ...
class OneSlot {
 public:
  OneSlot() : machine_({.build = "b"}, Incarnation{1, 1}) {
    perform(machine_.start(now_));
    WorkPlan plan{.fragments = 2, .rounds = Version{9}};
    plan.step_at = [](const std::vector<Version>& heads) {
      return std::max<std::int64_t>(heads[0].value > 0 ? 4 * heads[0].value - 2 : 0, 4 * heads[1].value);
    };
    plan.duties = [](std::int64_t step) {
      Duties duties;
      for (std::int32_t f : {0, 1}) {
        if (step > 0 && step % 4 == (f == 0 ? 2 : 0)) duties.adopt.push_back({f});
        if (step % 4 == (f == 0 ? 1 : 3)) duties.push.push_back({f});
      }
      return duties;
    };
    arrived(Welcome{"recipe", 1000});
    answer(worker_event::Configured{plan, Ready{}});
  }
  /// Leased with a saved state, while these are the newest versions.
  void resume(const SlotProgress& progress, std::int64_t head0, std::int64_t head1) {
    Grant grant{.slot = SlotId{0}, .attempt = Attempt{2}};
    grant.heads = {head(0, head0), head(1, head1)};
    grant.slot_state = {5, 5};
    arrived(grant);
    answer(worker_event::Restored{SlotId{0}, Attempt{2}, progress});
  }
  /// "FRAGMENT:VERSION" of all that it adopted since it was asked last.
  std::vector<std::string> adopted() { return std::exchange(adopted_, {}); }
  /// Does what it is asked to until it contributes: "FRAGMENT:VERSION" that it starts from. Empty: it waits.
  std::string contribution() {
    for (int i = 0; i < 20 && work_; ++i) {
      if (const auto* run = std::get_if<act::Run>(&*work_)) {
        answer(worker_event::Ran{run->slot, run->attempt, run->steps});
      } else if (const auto* contribute = std::get_if<act::Contribute>(&*work_)) {
        const KnownVersion from = contribute->fragments.at(0);
        return std::to_string(from.fragment.value) + ":" + std::to_string(from.version.value);
      }
    }
    return "";
  }

 private:
  static FragmentHead head(std::int32_t fragment, std::int64_t version) {
    const Digest digest{static_cast<std::uint64_t>(10 + fragment), static_cast<std::uint64_t>(version)};
    return {FragmentId{fragment}, Version{version}, BlobRef{digest, 4, ""}, digest, std::nullopt};
  }
  void arrived(const Message& message) {
    perform(machine_.handle(worker_event::Arrived{Header{{1, 1}, Epoch{1}, {9, 9}, 0}, message}, now_));
  }
  void answer(const WorkerEvent& event) {
    work_.reset();
    perform(machine_.handle(event, now_));
  }
  void perform(const WorkerActions& actions) {
    std::vector<Digest> fetched;
    for (const WorkerAction& action : actions) {
      if (is_work(action)) work_ = action;
      if (const auto* fetch = std::get_if<act::Fetch>(&action)) fetched.push_back(fetch->blob.digest);
      if (const auto* adopt = std::get_if<act::Adopt>(&action))
        adopted_.push_back(std::to_string(adopt->head.fragment.value) + ":" +
                           std::to_string(adopt->head.version.value));
    }
    for (const Digest& digest : fetched)
      perform(machine_.handle(worker_event::FetchDone{digest, true, {}}, now_));
  }

  WorkerMachine machine_;
  Instant now_{};
  std::optional<WorkerAction> work_;
  std::vector<std::string> adopted_;
};

/// It gave to version 2 of fragment 0, which it would have adopted before step 6, and was left out of
/// versions 2 and 3 of fragment 1. It goes on at step 12, so nothing would bring it fragment 0 before it
/// contributes.
TEST(CatchUp, ASlotThatSkipsStepsAdoptsAlsoWhatItGaveTo) {
  OneSlot slot;
  slot.resume({.step = 6, .adopted = {Version{1}, Version{1}}, .pushed = {Version{1}, Version{0}}}, 2, 3);
  EXPECT_THAT(slot.adopted(), ElementsAre("0:2", "1:3"));
  EXPECT_EQ(slot.contribution(), "0:2");
}

TEST(CatchUp, ASlotThatMissedNothingGoesOnWhereItWas) {
  OneSlot slot;
  slot.resume({.step = 6, .adopted = {Version{1}, Version{1}}, .pushed = {Version{1}, Version{0}}}, 2, 1);
  EXPECT_THAT(slot.adopted(), ElementsAre("0:2"));
  EXPECT_EQ(slot.contribution(), "1:1");
}

/// Rounds of 6 steps, of which it is given 4: it contributes after four and goes on with the next round.
TEST(CatchUp, ASlotLeavesOutTheStepsOfARoundThatItIsNotGiven) {
  WorkerMachine machine({.build = "b"}, Incarnation{1, 1});
  const Instant now{};
  std::vector<WorkerAction> work;
  const auto feed = [&](const WorkerEvent& event) {
    for (const WorkerAction& action : machine.handle(event, now)) {
      if (is_work(action)) work.push_back(action);
    }
  };
  const auto arrived = [&](const Message& message) {
    feed(worker_event::Arrived{Header{{1, 1}, Epoch{1}, {9, 9}, 0}, message});
  };
  const auto head = [](std::int64_t version) {
    const Digest digest{7, static_cast<std::uint64_t>(version)};
    return FragmentHead{{}, Version{version}, BlobRef{digest, 4, ""}, digest, std::nullopt};
  };
  machine.start(now);
  WorkPlan plan{.rounds = Version{9}, .own_clocks = true, .fetch_when_due = true, .round_steps = 6};
  plan.step_at = [](const std::vector<Version>&) { return std::int64_t{0}; };
  plan.duties = [](std::int64_t step) {
    Duties duties;
    if (step > 0 && step % 6 == 0) duties.adopt = {FragmentId{0}};
    if (step % 6 == 5) duties.push = {FragmentId{0}};
    return duties;
  };
  arrived(Welcome{"recipe", 1000});
  feed(worker_event::Configured{plan, Ready{}});
  Grant grant{.slot = SlotId{0}, .attempt = Attempt{1}};
  grant.heads = {head(0)};
  grant.steps = 4;
  arrived(grant);
  feed(worker_event::FetchDone{head(0).parameters.digest, true, {}});
  feed(worker_event::Restored{SlotId{0}, Attempt{1}, std::nullopt});
  EXPECT_EQ(std::get<act::Run>(work.back()).steps, 4);
  feed(worker_event::Ran{SlotId{0}, Attempt{1}, 1});
  EXPECT_EQ(std::get<act::Run>(work.back()).steps, 3);
  feed(worker_event::Ran{SlotId{0}, Attempt{1}, 3});
  EXPECT_EQ(std::get<act::Contribute>(work.back()).progress.step, 6);
  feed(worker_event::Contributed{.slot = SlotId{0},
                                 .attempt = Attempt{1},
                                 .parts = {{FragmentId{0}, BlobRef{{3, 3}, 4, ""}}},
                                 .slot_state = {4, 4},
                                 .slot_state_blob = {},
                                 .work = {}});
  arrived(Publish{.head = head(1)});
  arrived(Taken{{SlotId{0}, FragmentId{0}, Version{0}, Attempt{1}}, {3, 3}, 6});
  feed(worker_event::FetchDone{head(1).parameters.digest, true, {}});
  EXPECT_EQ(std::get<act::Run>(work.back()).first, 6);
  EXPECT_EQ(std::get<act::Run>(work.back()).steps, 6);
}

/// Adam's first update is the rate times the sign of the gradient, whichever step of the schedule it is.
TEST(CatchUp, BiasCorrectionCountsUpdatesNotStepsThatWereLeftOut) {
  Stepping at(Json{{"width", 16}, {"layers", 1}, {"heads", 2}, {"context", 8}}, "none", 1, 2);
  SlotRun run = at.make_run(at.everything());
  run.inner = make_plugin<InnerOptimizer>("adamw", {{"lr", 0.001}, {"weight_decay", 0.0}});
  run.go_to(1000);
  EXPECT_EQ(run.updates(), 0);
  at.replica.activate(run);
  const TensorMap before = at.replica.own_values();
  ASSERT_TRUE(at.trainer.step(run).ok());
  EXPECT_EQ(run.step, 1001);
  EXPECT_EQ(run.updates(), 1);
  double largest = 0;
  for (const auto& [piece, values] : at.replica.own_values()) {
    for (std::size_t i = 0; i < values.as<float>().size(); ++i)
      largest = std::max(largest, std::abs(static_cast<double>(values.as<float>()[i]) -
                                           static_cast<double>(before.at(piece).as<float>()[i])));
  }
  EXPECT_NEAR(largest, 0.001, 1e-5);
  // It is part of the slot's state; without steps left out nothing is, and old states have the same hash.
  SlotRun again = at.make_run(at.everything());
  ASSERT_TRUE(again.load(run.state({.step = 1001})).ok());
  EXPECT_EQ(again.updates(), 1);
  run.go_to(1003);
  EXPECT_EQ(run.updates(), 1);
  EXPECT_FALSE(at.make_run(at.everything()).state({}).contains("slot/left_out"));
  at.replica.release(run);
}

}  // namespace
}  // namespace tessera::testing
