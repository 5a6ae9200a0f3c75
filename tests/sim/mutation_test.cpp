// Deliberate mistakes, one at a time: each rule of the protocol is needed, and the simulator notices when it
// is missing.
#include <gtest/gtest.h>

#include <functional>
#include <iostream>

#include "tests/sim/world.h"

namespace tessera::sim {
namespace {

struct Mistake {
  const char* name;
  std::function<void(Scenario&)> make;
};
void PrintTo(const Mistake& mistake, std::ostream* out) {
  *out << mistake.name;
}
const Mistake mistakes[] = {
    {"AcknowledgesBeforeItIsDurable", [](Scenario& s) { s.rules.stage_before_taken = false; }},
    {"DoesNotCheckTheJob", [](Scenario& s) { s.rules.check_job = false; }},
    {"DoesNotCheckTheEpoch", [](Scenario& s) { s.rules.check_epoch = false; }},
    {"DoesNotCheckTheAttempt", [](Scenario& s) { s.rules.check_attempt = false; }},
    {"AcceptsFromWhoDoesNotHoldTheSlot", [](Scenario& s) { s.rules.check_holder = false; }},
    {"DoesNotCheckTheVersion", [](Scenario& s) { s.rules.check_version = false; }},
    {"TakesAContributionTwice", [](Scenario& s) { s.rules.deduplicate = false; }},
    {"MergesBeforeItIsSealed", [](Scenario& s) { s.rules.seal_before_merge = false; }},
    {"PublishesBeforeTheCommit", [](Scenario& s) { s.rules.commit_before_publish = false; }},
    {"MergesInOrderOfArrival", [](Scenario& s) { s.rules.slot_order = false; }},
    {"DoesNotWaitForAllSlots", [](Scenario& s) { s.rules.wait_for_all = false; }},
    {"LeasesAgainWithTheSameAttempt", [](Scenario& s) { s.rules.new_attempt_per_lease = false; }},
    {"ForgetsWhatItAcknowledged", [](Scenario& s) { s.forget_staged = true; }},
    {"DividesByTheNumberOfSlots", [](Scenario& s) { s.toy.divide_by_owners = false; }},
    {"DoesNotLogWhoIsLeftOut", [](Scenario& s) { s.rules.name_the_absent = false; }},
    {"MovesMomentumWhereNobodyContributed", [](Scenario& s) { s.toy.hold_uncovered = false; }},
};

class Mutations : public ::testing::TestWithParam<Mistake> {};

TEST_P(Mutations, AreCaught) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    for (Method method : all_methods) {
      Scenario scenario{.seed = seed, .method = method};
      GetParam().make(scenario);
      const Outcome outcome = run(scenario);
      if (outcome.failure.empty()) continue;
      std::cout << GetParam().name << ": caught by " << name_of(method) << " seed " << seed << ": "
                << outcome.failure << "\n";
      return;
    }
  }
  FAIL() << GetParam().name << " went unnoticed in 1,200 runs";
}

INSTANTIATE_TEST_SUITE_P(Rules, Mutations, ::testing::ValuesIn(mistakes),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace tessera::sim
