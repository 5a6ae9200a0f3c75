// The coordinator with its run directory, over in-process endpoints: dies anywhere, comes back, same bits.
#include "coordinator/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/comm/scratch_folder.h"
#include "tests/coordinator/rig.h"

namespace tessera {
namespace {

/// The undisturbed run.
const std::vector<std::string>& undisturbed() {
  static const std::vector<std::string> story = [] {
    ScratchFolder folder;
    Rig rig(1, folder.path());
    EXPECT_TRUE(rig.finish());
    return rig.story();
  }();
  return story;
}

TEST(Coordinator, OneRowPerVersionInOrderWithItsEvaluations) {
  ScratchFolder folder;
  Rig rig(2, folder.path());
  ASSERT_TRUE(rig.finish());
  EXPECT_EQ(rig.story(), undisturbed()) << "the number of workers changes no bit";
  const auto rows = rig.rows();
  ASSERT_EQ(rows.size(), 6u);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i]["round"], i + 1);
    EXPECT_EQ(rows[i].contains("eval_loss"), i % 2 == 1);
    EXPECT_EQ(rows[i]["units"], Rig::slots * Rig::steps * 10);
  }
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "checkpoints" / "00000003" / "manifest.json"));
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "checkpoints" / "00000006" / "manifest.json"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path() / "log" / "staged"));
}

TEST(Coordinator, DiesAfterAnyPumpAndComesBackWithTheSameHashes) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    ScratchFolder folder;
    Rig rig(2, folder.path());
    int deaths = 0;
    for (int i = 0; i < 20000 && !rig.coordinator->done(); ++i) {
      rig.pump();
      if (deaths < 8 && random.chance(0.1) && !rig.coordinator->done()) {
        ++deaths;
        ASSERT_TRUE(rig.open().ok());
      }
    }
    ASSERT_TRUE(rig.finish());
    EXPECT_EQ(rig.story(), undisturbed());
  }
}

TEST(Coordinator, WorkersDieAndTheirSlotsAreRunAgainWithTheSameHashes) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    ScratchFolder folder;
    Rig rig(2, folder.path());
    for (int i = 0; i < 20000 && !rig.coordinator->done(); ++i) {
      rig.pump();
      if (i < 3000 && random.chance(0.02) && !rig.workers.empty()) {
        rig.workers.erase(rig.workers.begin());
        rig.add_worker();
      }
    }
    ASSERT_TRUE(rig.finish());
    EXPECT_EQ(rig.story(), undisturbed());
  }
}

TEST(Coordinator, ACutLineAndADamagedStagedContributionAreMadeAgain) {
  ScratchFolder folder;
  Rig rig(1, folder.path());
  int damaged = 0;
  for (int i = 0; i < 20000 && !rig.coordinator->done(); ++i) {
    rig.pump();
    if (damaged >= 3 || rig.coordinator->state().ledger.fragments[0].staged.empty() || i % 7 != 0) continue;
    rig.coordinator.reset();
    std::ofstream(folder.path() / "metrics.jsonl", std::ios::app) << "{\"round\": 9";
    const auto staged = std::filesystem::directory_iterator(folder.path() / "log" / "staged")->path();
    std::filesystem::resize_file(staged, std::filesystem::file_size(staged) - 1);
    ASSERT_TRUE(rig.open().ok());
    ++damaged;
  }
  EXPECT_EQ(damaged, 3);
  ASSERT_TRUE(rig.finish());
  EXPECT_EQ(rig.story(), undisturbed());
}

TEST(Coordinator, ANotANumberIsRejectedAndTheRunGoesOn) {
  ScratchFolder folder;
  Rig rig(1, folder.path());
  for (int i = 0; i < 10; ++i) rig.pump();
  rig.workers[0]->spoil_next = true;
  ASSERT_TRUE(rig.finish());
  EXPECT_EQ(rig.metrics.value(metric::rejected_contributions, "contribution") +
                rig.metrics.value(metric::rejected_contributions, "other"),
            1);
  EXPECT_EQ(rig.story(), undisturbed());
}

TEST(Coordinator, DrainsToAResumableEndAndResumes) {
  ScratchFolder folder;
  Rig rig(2, folder.path());
  while (rig.coordinator->state().ledger.fragments[0].version < Version{2}) rig.pump();
  rig.coordinator->drain("Ctrl-C");
  for (int i = 0; i < 1000 && !rig.coordinator->done(); ++i) rig.pump();
  EXPECT_EQ(rig.coordinator->finish().code, ExitCode::resumable);
  EXPECT_TRUE(rig.workers.empty()) << "all were told";
  ASSERT_TRUE(rig.open().ok());
  rig.add_worker();
  rig.add_worker();
  ASSERT_TRUE(rig.finish());
  EXPECT_EQ(rig.story(), undisturbed());
}

TEST(Coordinator, ASecondOneOnTheSameDirectoryIsFenced) {
  ScratchFolder folder;
  Rig rig(1, folder.path());
  InprocHub other;
  const auto endpoint = other.make_coordinator();
  CoordinatorParts parts;
  parts.settings.slot_count = Rig::slots;
  parts.settings.owned = [](SlotId, Version) { return RowSet(); };
  parts.store.run = folder.path();
  parts.specs = small_specs();
  parts.method = Registry<OuterMethod>::builtin().make(
      "diloco", OuterMethod::Context{.specs = small_specs(), .steps = Rig::steps});
  parts.initial = random_tensors(small_specs(), 1);
  Metrics metrics;
  const auto second = Coordinator::open(std::move(parts), *endpoint, rig.clock, metrics);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ExitCode::fenced);
}

}  // namespace
}  // namespace tessera
