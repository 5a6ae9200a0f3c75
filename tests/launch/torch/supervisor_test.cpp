// The supervisor with real children of a few milliseconds; time is the test's own.
#include "launch/supervisor.h"

#include <gmock/gmock.h>
#include <signal.h>

#include <thread>

namespace tessera {
namespace {

using std::chrono::milliseconds;

class Supervised : public ::testing::Test {
 protected:
  ChildSpec shell(const std::string& name, const std::string& script, bool decides) {
    return {.name = name,
            .process = {.arguments = {"/bin/sh", "-c", script}},
            .restart_arguments = {},
            .decides = decides};
  }
  Supervisor make(std::vector<ChildSpec> children) {
    return Supervisor(std::move(children), [this](const std::string& line) { said_.push_back(line); });
  }
  /// Polls for at most ten real seconds; every poll is a second later for the supervisor.
  std::optional<int> outcome(Supervisor& supervisor) {
    for (int i = 0; i < 1000; ++i) {
      now_ += std::chrono::seconds(1);
      if (auto code = supervisor.poll(now_)) return code;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return std::nullopt;
  }
  Instant now_{};
  std::vector<std::string> said_;
};

TEST_F(Supervised, EndsWithTheCodeOfTheChildThatDecidesAndLeavesNobodyBehind) {
  Supervisor supervisor =
      make({shell("coordinator", "exit 75", true), shell("worker", "exec sleep 100", false)});
  ASSERT_TRUE(supervisor.start().ok());
  EXPECT_EQ(outcome(supervisor), 75);
}

TEST_F(Supervised, StoppedTwiceItEndsResumable) {
  Supervisor supervisor = make(
      {shell("coordinator", "trap '' TERM; exec sleep 100", true), shell("worker", "exec sleep 100", false)});
  ASSERT_TRUE(supervisor.start().ok());
  supervisor.stop();
  EXPECT_EQ(supervisor.poll(now_), std::nullopt) << "asked to drain, it still runs";
  supervisor.stop();
  EXPECT_EQ(outcome(supervisor), 75);
}

TEST_F(Supervised, StoppedWhileTheDeciderWaitsToBeStartedAgainItEnds) {
  Supervisor supervisor = make({shell("coordinator", "kill -9 $$", true)});
  ASSERT_TRUE(supervisor.start().ok());
  for (int i = 0; i < 500 && said_.empty();
       ++i) {  // until its death was noticed; no time passes for the supervisor
    supervisor.poll(now_);
    std::this_thread::sleep_for(milliseconds(10));
  }
  ASSERT_FALSE(said_.empty());
  supervisor.stop();
  EXPECT_EQ(outcome(supervisor), 75);
}

TEST_F(Supervised, AChildThatDiesAgainAndAgainEndsTheRun) {
  Supervisor supervisor =
      make({shell("coordinator", "exec sleep 100", true), shell("worker 1", "kill -9 $$", false)});
  ASSERT_TRUE(supervisor.start().ok());
  EXPECT_EQ(outcome(supervisor), 1);
  EXPECT_EQ(supervisor.recoveries(), 5);
  ASSERT_FALSE(said_.empty());
  EXPECT_THAT(said_.back(), ::testing::HasSubstr("worker 1 died 6 times within a minute"));
}

TEST_F(Supervised, AChildThatRefusesIsNotStartedAgain) {
  Supervisor supervisor =
      make({shell("coordinator", "exec sleep 100", true), shell("worker 1", "exit 78", false)});
  ASSERT_TRUE(supervisor.start().ok());
  EXPECT_EQ(outcome(supervisor), 78);
  EXPECT_EQ(supervisor.recoveries(), 0);
}

}  // namespace
}  // namespace tessera
