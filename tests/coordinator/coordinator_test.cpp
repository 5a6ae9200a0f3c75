// The coordinator with its run directory, over in-process endpoints: dies anywhere, comes back, same bits.
#include "coordinator/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "comm/transport/inproc_endpoint.h"
#include "tests/comm/scratch_folder.h"
#include "tests/coordinator/toy_worker.h"

namespace tessera {
namespace {

const std::int32_t slots = 4;
const std::int64_t steps = 2;

/// A run on one thread and a clock of its own: one coordinator, some workers, all replaceable.
class Rig {
 public:
  explicit Rig(std::int32_t workers, const Path& folder) : folder_(folder), workers_(workers) {
    method_ = Registry<OuterMethod>::builtin().make(
        "diloco", OuterMethod::Context{.specs = small_specs(), .steps = steps});
    EXPECT_TRUE(open().ok());
    for (std::int32_t w = 0; w < workers; ++w) add_worker();
  }

  Status open() {
    coordinator.reset();
    endpoint_.reset();
    endpoint_ = hub_.make_coordinator();
    CoordinatorParts parts;
    parts.settings.build = "toy";
    parts.settings.rounds = Version{6};
    parts.settings.eval_every = 2;
    parts.settings.checkpoint_every = 3;
    parts.settings.expected_workers = workers_;
    const Plan plan = small_plan(2, slots);
    parts.settings.slot_count = slots;
    parts.settings.owned = [plan](SlotId slot, Version) { return plan.owned_by(slot.value); };
    parts.store.run = folder_;
    parts.specs = small_specs();
    parts.method = method_;
    parts.initial = random_tensors(small_specs(), 1);
    auto opened = Coordinator::open(std::move(parts), *endpoint_, clock, metrics);
    if (!opened.ok()) return opened.error();
    coordinator = std::move(*opened);
    coordinator->start();
    return {};
  }
  void add_worker() {
    WorkPlan plan;
    plan.rounds = Version{6};
    plan.steps_per_merge = steps;
    plan.duties = [method = method_](std::int64_t step) {
      Duties duties;
      if (!method->due(step).adopt.empty()) duties.adopt = {FragmentId{0}};
      if (!method->due(step).push.empty()) duties.push = {FragmentId{0}};
      return duties;
    };
    workers.push_back(std::make_unique<ToyWorker>(hub_.make_worker(), ++made_, plan, disk_));
    workers.back()->start(clock.now());
  }
  void pump() {
    clock.advance(std::chrono::milliseconds(5));
    coordinator->pump(clock.now());
    for (auto& worker : workers) worker->pump(clock.now());
    std::erase_if(workers, [](const auto& worker) { return worker->exit.has_value(); });
  }
  /// Until the coordinator is done; false: it takes too long.
  bool finish() {
    for (int i = 0; i < 20000 && !coordinator->done(); ++i) pump();
    return coordinator->done() && coordinator->finish().code == ExitCode::done;
  }
  std::vector<nlohmann::json> rows() const {
    std::vector<nlohmann::json> rows;
    std::ifstream file(folder_ / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
  }
  /// What must be the same whatever happened: per round its number, loss, evaluation and state hash.
  std::vector<std::string> story() const {
    std::vector<std::string> story;
    for (const nlohmann::json& row : rows()) {
      story.push_back(row["round"].dump() + " " + row["loss"].dump() + " " +
                      row.value("eval_loss", nlohmann::json()).dump() + " " +
                      row["state_hash"].get<std::string>());
    }
    return story;
  }

  ManualClock clock;
  Metrics metrics;
  std::unique_ptr<Coordinator> coordinator;
  std::vector<std::unique_ptr<ToyWorker>> workers;

 private:
  Path folder_;
  std::int32_t workers_;
  InprocHub hub_;
  std::shared_ptr<const OuterMethod> method_;
  std::unique_ptr<Endpoint> endpoint_;
  SlotStates disk_;
  std::uint64_t made_ = 0;
};

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
    EXPECT_EQ(rows[i]["units"], slots * steps * 10);
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
  parts.settings.slot_count = slots;
  parts.settings.owned = [](SlotId, Version) { return RowSet(); };
  parts.store.run = folder.path();
  parts.specs = small_specs();
  parts.method = Registry<OuterMethod>::builtin().make(
      "diloco", OuterMethod::Context{.specs = small_specs(), .steps = steps});
  parts.initial = random_tensors(small_specs(), 1);
  Metrics metrics;
  const auto second = Coordinator::open(std::move(parts), *endpoint, rig.clock, metrics);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ExitCode::fenced);
}

}  // namespace
}  // namespace tessera
