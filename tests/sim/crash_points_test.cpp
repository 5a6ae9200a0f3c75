// A crash before every single action of an undisturbed run, one run each; and what the random runs reached,
// counted.
#include <gtest/gtest.h>

#include <iostream>

#include "tests/sim/world.h"

namespace tessera::sim {
namespace {

class CrashPoints : public ::testing::TestWithParam<Method> {};

TEST_P(CrashPoints, EveryActionOfTheCoordinatorCanBeItsLast) {
  const Outcome undisturbed = run({.seed = 1, .method = GetParam(), .faults = false});
  for (std::uint64_t k = 0; k < undisturbed.coordinator_actions; ++k) {
    const Outcome outcome =
        run({.seed = 1, .method = GetParam(), .faults = false, .crash_coordinator_at = k});
    ASSERT_EQ(outcome.failure, "") << "crash before action " << k;
    EXPECT_EQ(outcome.coordinator_crashes, 1u);
    if (is_exact(GetParam())) {
      ASSERT_EQ(outcome.chains, undisturbed.chains) << "crash before action " << k;
    }
  }
}

TEST_P(CrashPoints, EveryActionOfAWorkerCanBeItsLast) {
  const Outcome undisturbed = run({.seed = 1, .method = GetParam(), .faults = false});
  for (std::uint64_t k = 0; k < undisturbed.worker_actions; ++k) {
    const Outcome outcome = run({.seed = 1, .method = GetParam(), .faults = false, .crash_worker_at = k});
    ASSERT_EQ(outcome.failure, "") << "crash before action " << k;
    if (is_exact(GetParam())) {
      ASSERT_EQ(outcome.chains, undisturbed.chains) << "crash before action " << k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, CrashPoints, ::testing::ValuesIn(all_methods),
                         [](const auto& info) { return std::string(name_of(info.param)); });

/// Where chance has not crashed a process yet, a run that was there is repeated and cut exactly there.
void crash_at_the_rest(Coverage& coverage, std::map<std::string, Coverage::Counts> Coverage::*who) {
  const std::map<std::string, Coverage::Counts> points = coverage.*who;
  for (const auto& [point, counts] : points) {
    if (counts.crashed > 0) continue;
    const Scenario scenario{.seed = counts.seed, .method = counts.method, .crash_before = point};
    const Outcome outcome = run(scenario, &coverage);
    EXPECT_EQ(outcome.failure, "") << "crash before " << point << "; " << describe(scenario);
  }
}

void report(const char* who, const std::map<std::string, Coverage::Counts>& counts) {
  std::uint64_t reached = 0, crashed = 0;
  for (const auto& [point, count] : counts) {
    std::cout << "  " << point << ": " << count.reached << " performed, " << count.crashed
              << " crashed before\n";
    reached += count.reached;
    crashed += count.crashed;
  }
  std::cout << who << ": " << counts.size() << " points (event, state, action), performed " << reached
            << " times, crashed before " << crashed << " times\n";
}

TEST(CrashPointCoverage, EveryEventAndStateAndActionIsReachedAndCutShort) {
  Coverage coverage;
  for (Method method : all_methods) {
    for (std::uint64_t seed = 10000; seed < 10200; ++seed) {
      const Scenario scenario{.seed = seed, .method = method};
      const Outcome outcome = run(scenario, &coverage);
      ASSERT_EQ(outcome.failure, "") << describe(scenario);
    }
  }
  const Coverage by_chance = coverage;
  crash_at_the_rest(coverage, &Coverage::coordinator);
  crash_at_the_rest(coverage, &Coverage::worker);
  report("coordinator", coverage.coordinator);
  report("workers", coverage.worker);
  for (const auto& [point, count] : by_chance.coordinator)
    EXPECT_GT(coverage.coordinator[point].crashed, 0u) << point;
  for (const auto& [point, count] : by_chance.worker) EXPECT_GT(coverage.worker[point].crashed, 0u) << point;
  // Every kind of event met every state of a merge in which it can come.
  for (const char* event : {"Hello", "Ready", "Heartbeat", "Offer", "Fetched", "Tick", "WorkerDied"}) {
    for (const char* state : {"open", "collecting", "merging", "unrated"}) {
      const std::string prefix = std::string(event) + " | " + state + " -> ";
      const auto point = coverage.coordinator.lower_bound(prefix);
      EXPECT_TRUE(point != coverage.coordinator.end() && point->first.starts_with(prefix)) << prefix;
    }
  }
}

}  // namespace
}  // namespace tessera::sim
