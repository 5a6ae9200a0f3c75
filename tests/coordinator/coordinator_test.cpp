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
    ASSERT_TRUE(rig.finish_while_the_coordinator_dies(random));
    EXPECT_EQ(rig.story(), undisturbed());
  }
}

TEST(Coordinator, AVersionThatWasPublishedAndNotSavedIsMadeAgain) {
  int lost = 0;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    RigOptions options;
    options.keeps_fast = seed % 2 == 1;
    ScratchFolder folder, quiet;
    Rig undisturbed(2, quiet.path(), options);
    ASSERT_TRUE(undisturbed.finish());
    options.saves_later = true;
    Rig rig(2, folder.path(), options);
    ASSERT_TRUE(rig.finish_while_the_coordinator_dies(random));
    EXPECT_EQ(rig.story(), undisturbed.story());
    EXPECT_EQ(rig.metrics.value(metric::recoveries, "resume"), 0) << "no roll-back";
    EXPECT_TRUE(std::filesystem::is_empty(folder.path() / "log" / "staged"));
    lost += rig.lost;
  }
  EXPECT_GE(lost, 6);
}

TEST(Coordinator, WorkersDieAndTheirSlotsAreRunAgainWithTheSameHashes) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    ScratchFolder folder;
    Rig rig(2, folder.path());
    ASSERT_TRUE(rig.finish_while_workers_die(random));
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

/// What a held slice consists of, in the newest state on disk.
std::vector<std::vector<float>> odd_rows(const Path& run, std::int64_t version) {
  const auto state = saved_state(run, Version{version});
  EXPECT_TRUE(state.ok()) << "version " << version;
  std::vector<std::vector<float>> rows;
  for (const char* tensor : {"mlp.up", "mlp.bias", "momentum/mlp.up", "momentum/mlp.bias"})
    rows.push_back(floats(state->tensors.at(tensor).rows({4, 8})));
  return rows;
}

TEST(Coordinator, InModeDropASliceWithoutOwnersIsHeldBitForBitAndEverybodyIsTold) {
  ScratchFolder folder;
  Rig rig(2, folder.path(),
          {.mode = Mode::drop});  // the second worker has slots 1 and 3, who own slice 1 of 2
  const auto version = [&] { return rig.coordinator->state().ledger.fragments[0].version.value; };
  while (version() < 1) rig.pump();
  EXPECT_EQ(rig.metrics.value(metric::exact), 1);
  rig.workers.pop_back();
  const auto held = odd_rows(folder.path(), 1);
  EXPECT_NE(held[2], std::vector<float>(held[2].size())) << "there is momentum that could move";
  while (version() < 4) rig.pump();
  EXPECT_EQ(odd_rows(folder.path(), 4), held);
  EXPECT_EQ(rig.metrics.value(metric::held_slices), 1);
  EXPECT_EQ(rig.metrics.value(metric::held_rounds), 3);
  EXPECT_EQ(rig.metrics.value(metric::uncovered_coordinates), 4 * 3 + 4);
  EXPECT_EQ(rig.metrics.value(metric::exact), 0);
  EXPECT_EQ(rig.metrics.value(metric::checkpoint_failures), 0) << "those who are away do not hinder it";
  ASSERT_TRUE(rig.open().ok());
  EXPECT_EQ(rig.metrics.value(metric::exact), 0) << "a restart does not forget it";
  rig.add_worker(2);
  ASSERT_TRUE(rig.finish());
  const auto rows = rig.rows();
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_FALSE(rows[0].contains("held"));
  for (int i = 1; i < 4; ++i) {
    EXPECT_EQ(rows[i]["held"].dump(), "{\"mlp/units[4:8]\":" + std::to_string(i) + "}");
    EXPECT_EQ(rows[i]["left_out"].dump(), "[1,3]");
    EXPECT_EQ(rows[i]["uncovered"], 4 * 3 + 4);
  }
  EXPECT_FALSE(rows[5].contains("left_out"));
  EXPECT_NE(odd_rows(folder.path(), 6), held) << "the owners are back";
  EXPECT_EQ(rig.metrics.value(metric::held_slices), 0);
  EXPECT_GE(rig.metrics.value(metric::left_out), 6);
}

TEST(Coordinator, OwnersThatChangeEveryRoundGiveTheSameHashesWhoeverDies) {
  std::vector<std::string> story;
  {
    ScratchFolder folder;
    Rig rig(1, folder.path(), {.rotate_every = 1});
    ASSERT_TRUE(rig.finish());
    story = rig.story();
    for (const auto& row : rig.rows()) EXPECT_EQ(row["uncovered"], 0);
  }
  EXPECT_EQ(story[0], undisturbed()[0]) << "the first round has the first owners";
  EXPECT_NE(story[1], undisturbed()[1]);
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    ScratchFolder folder;
    Rig rig(2, folder.path(), {.rotate_every = 1});
    int deaths = 0;
    for (int i = 0; i < 20000 && !rig.coordinator->done(); ++i) {
      rig.pump();
      if (deaths >= 8 || rig.coordinator->done()) continue;
      if (random.chance(0.05)) {
        ++deaths;
        ASSERT_TRUE(rig.open().ok());
      } else if (random.chance(0.05) && !rig.workers.empty()) {
        ++deaths;
        rig.workers.erase(rig.workers.begin());
        rig.add_worker();
      }
    }
    ASSERT_TRUE(rig.finish());
    EXPECT_EQ(rig.story(), story);
  }
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
