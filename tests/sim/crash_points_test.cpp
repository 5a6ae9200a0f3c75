// A crash before every single action of an undisturbed run, one run each; and what the random runs reached, counted.
#include <gtest/gtest.h>

#include <iostream>

#include "tests/sim/world.h"

namespace tessera::sim {
namespace {

class CrashPoints : public ::testing::TestWithParam<Method> {};

TEST_P(CrashPoints, EveryActionOfTheCoordinatorCanBeItsLast) {
  const Outcome undisturbed = run({.seed = 1, .method = GetParam(), .faults = false});
  for (std::uint64_t k = 0; k < undisturbed.coordinator_actions; ++k) {
    const Outcome outcome = run({.seed = 1, .method = GetParam(), .faults = false, .crash_coordinator_at = k});
    ASSERT_EQ(outcome.failure, "") << "crash before action " << k;
    EXPECT_EQ(outcome.coordinator_crashes, 1u);
    if (GetParam() == Method::diloco || GetParam() == Method::streaming) {
      ASSERT_EQ(outcome.chains, undisturbed.chains) << "crash before action " << k;
    }
  }
}

TEST_P(CrashPoints, EveryActionOfAWorkerCanBeItsLast) {
  const Outcome undisturbed = run({.seed = 1, .method = GetParam(), .faults = false});
  for (std::uint64_t k = 0; k < undisturbed.worker_actions; ++k) {
    const Outcome outcome = run({.seed = 1, .method = GetParam(), .faults = false, .crash_worker_at = k});
    ASSERT_EQ(outcome.failure, "") << "crash before action " << k;
    if (GetParam() == Method::diloco || GetParam() == Method::streaming) {
      ASSERT_EQ(outcome.chains, undisturbed.chains) << "crash before action " << k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, CrashPoints, ::testing::ValuesIn(all_methods),
                         [](const auto& info) { return std::string(name_of(info.param)); });

void report(const char* who, const std::map<std::string, Coverage::Counts>& counts, double at_least) {
  std::size_t crashed = 0;
  for (const auto& [point, count] : counts) {
    std::cout << "  " << who << ' ' << point << ": reached " << count.reached << ", crashed before " << count.crashed << "\n";
    crashed += count.crashed > 0;
    // What happens often must also have been cut short.
    if (count.reached > 1500) {
      EXPECT_GT(count.crashed, 0u) << who << ' ' << point;
    }
  }
  std::cout << who << ": " << counts.size() << " (event, state, action) points reached, crashed before " << crashed << "\n";
  EXPECT_GE(static_cast<double>(crashed), at_least * static_cast<double>(counts.size()));
}

TEST(CrashPointCoverage, EveryEventAndStateAndActionIsReached) {
  Coverage coverage;
  for (Method method : all_methods) {
    for (std::uint64_t seed = 10000; seed < 10200; ++seed) {
      const Scenario scenario{.seed = seed, .method = method};
      const Outcome outcome = run(scenario, &coverage);
      ASSERT_EQ(outcome.failure, "") << describe(scenario);
    }
    const Outcome undisturbed = run({.seed = 1, .method = method, .faults = false});
    for (std::uint64_t k = 0; k < undisturbed.coordinator_actions; k += 1) {
      run({.seed = 1, .method = method, .faults = false, .crash_coordinator_at = k}, &coverage);
    }
  }
  report("coordinator", coverage.coordinator, 0.5);
  report("worker", coverage.worker, 0.8);
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
