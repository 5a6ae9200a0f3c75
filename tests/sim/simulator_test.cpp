// Seeded runs of the protocol in virtual time (world.h). A failing seed is printed with the line that replays
// it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "tests/sim/world.h"

namespace tessera::sim {
namespace {

/// The chains that every exact run of this configuration must have, whatever went wrong in it.
const Outcome& undisturbed(Method method, std::uint64_t seed) {
  static std::map<std::pair<Method, std::uint64_t>, Outcome> runs;
  auto [found, is_new] = runs.try_emplace({method, seed % 3});
  if (is_new) found->second = run({.seed = seed % 3, .method = method, .faults = false});
  return found->second;
}

/// Compares; "" when all is well.
std::string failure_of(const Scenario& scenario, const Outcome& outcome) {
  if (!outcome.failure.empty()) return outcome.failure;
  if (is_exact(scenario.method) && outcome.chains != undisturbed(scenario.method, scenario.seed).chains) {
    return "I5: the state hashes differ from those of the undisturbed run";
  }
  return "";
}

class SimulatorMethods : public ::testing::TestWithParam<Method> {};
std::string method_name(const ::testing::TestParamInfo<Method>& info) {
  return name_of(info.param);
}

TEST_P(SimulatorMethods, UndisturbedRunEnds) {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const Scenario scenario{.seed = seed, .method = GetParam(), .faults = false};
    const Outcome outcome = run(scenario);
    EXPECT_EQ(failure_of(scenario, outcome), "") << describe(scenario);
    EXPECT_LT(seconds(outcome.took), 5.0);
  }
}

TEST_P(SimulatorMethods, AllInvariantsHoldUnderRandomFaults) {
  const char* wanted = std::getenv("TESSERA_SIM_RUNS");
  const std::uint64_t runs = wanted ? std::stoull(wanted) : 1000;
  Outcome sum;
  for (std::uint64_t seed = 0; seed < runs; ++seed) {
    const Scenario scenario{.seed = seed, .method = GetParam()};
    const Outcome outcome = run(scenario);
    sum.events += outcome.events;
    sum.coordinator_crashes += outcome.coordinator_crashes;
    sum.worker_crashes += outcome.worker_crashes;
    sum.stale += outcome.stale;
    sum.partial += outcome.partial;
    sum.shortened += outcome.shortened;
    ASSERT_EQ(failure_of(scenario, outcome), "") << describe(scenario);
  }
  std::cout << name_of(GetParam()) << ": " << runs << " runs, " << sum.events << " events, "
            << sum.coordinator_crashes << " coordinator and " << sum.worker_crashes << " worker crashes, "
            << sum.stale << " stale messages, " << sum.partial << " partial merges\n";
  EXPECT_GT(sum.coordinator_crashes, runs / 2);
  EXPECT_GT(sum.worker_crashes, runs / 2);
  EXPECT_GT(sum.stale, runs);
  if (is_drop(GetParam())) {
    EXPECT_GT(sum.partial, runs / 2);
  }
  if (GetParam() == Method::async) {
    EXPECT_GT(sum.shortened, runs);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, SimulatorMethods, ::testing::ValuesIn(all_methods), method_name);

/// TESSERA_SIM=METHOD:SEED runs that one again, saying what it ends with.
TEST(Simulator, ReplaysOneSeed) {
  const char* wanted = std::getenv("TESSERA_SIM");
  if (!wanted) GTEST_SKIP() << "TESSERA_SIM=METHOD:SEED names the run";
  const std::string text = wanted;
  const std::size_t colon = text.find(':');
  ASSERT_NE(colon, std::string::npos);
  for (Method method : all_methods) {
    if (text.substr(0, colon) != name_of(method)) continue;
    const Scenario scenario{
        .seed = std::stoull(text.substr(colon + 1)), .method = method, .story = &std::cout};
    EXPECT_EQ(failure_of(scenario, run(scenario)), "");
  }
}

TEST(Simulator, SameSeedSameRun) {
  for (Method method : all_methods) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      const Scenario scenario{.seed = seed, .method = method};
      const Outcome a = run(scenario), b = run(scenario);
      EXPECT_EQ(a.fingerprint, b.fingerprint) << describe(scenario);
      EXPECT_EQ(a.chains, b.chains);
    }
  }
}

}  // namespace
}  // namespace tessera::sim
