// A run on one thread and a clock of its own, over in-process endpoints and toy workers: all parts can be
// replaced at any time.
#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"
#include "comm/transport/inproc_endpoint.h"
#include "coordinator/coordinator.h"
#include "tests/coordinator/toy_worker.h"

namespace tessera {

struct RigOptions {
  std::int64_t slices = 2;
  bool keeps_fast = false;
  std::int64_t rotate_every = 0;
  Wire up{}, down{};
  bool saves_later = false;    ///< and whoever dies while it saves has not saved
  bool claims_finite = false;  ///< the endpoint says of every blob that its numbers are finite
  Mode mode = Mode::exact;  ///< drop: every worker has room for its share alone, half the slots are a quorum
};

/// An endpoint that has seen nothing but finite numbers.
class ClaimsFinite final : public Endpoint {
 public:
  explicit ClaimsFinite(std::unique_ptr<Endpoint> endpoint) : endpoint_(std::move(endpoint)) {}
  void identify(JobId job, Epoch epoch, Incarnation incarnation) override {
    endpoint_->identify(job, epoch, incarnation);
  }
  void send(PeerId to, const Message& message) override { endpoint_->send(to, message); }
  std::optional<Arrival> receive(Instant deadline) override {
    std::optional<Arrival> arrival = endpoint_->receive(deadline);
    if (arrival)
      if (auto* blob = std::get_if<BlobArrived>(&*arrival)) blob->is_finite = true;
    return arrival;
  }
  BlobRef offer(const Blob& blob) override { return endpoint_->offer(blob); }
  void withdraw(const Digest& digest) override { endpoint_->withdraw(digest); }
  void fetch(PeerId from, const BlobRef& ref) override { endpoint_->fetch(from, ref); }
  TransportCounters counters() const override { return endpoint_->counters(); }

 private:
  std::unique_ptr<Endpoint> endpoint_;
};

/// Where a run saves a version of its one fragment.
inline Path state_file(const Path& run, Version version) {
  char name[64];
  std::snprintf(name, sizeof name, "state-0-%08d.safetensors", static_cast<int>(version.value));
  return run / "log" / name;
}
/// The tensors that lie there.
inline Result<SafetensorsFile> saved_state(const Path& run, Version version) {
  const Path path = state_file(run, version);
  TESSERA_ASSIGN(Buffer bytes, read_file(path));
  return decode_safetensors(std::move(bytes), path.string());
}

class Rig {
 public:
  static constexpr std::int32_t slots = 4;
  static constexpr std::int64_t steps = 2;

  Rig(std::int32_t workers, const Path& folder, RigOptions options = {})
      : schedule(small_schedule(options.slices, slots, options.rotate_every)),
        folder_(folder),
        workers_(workers),
        options_(options) {
    method_ = Registry<OuterMethod>::builtin().make(
        "diloco", OuterMethod::Context{.specs = small_specs(), .steps = steps, .cut = OuterStep{0.3, 0.5}});
    EXPECT_TRUE(open().ok());
    for (std::int32_t w = 0; w < workers; ++w)
      add_worker(options.mode == Mode::drop ? slots / workers : slots);
  }

  Status open() {
    coordinator.reset();
    endpoint_.reset();
    endpoint_ = hub_.make_coordinator();
    if (options_.claims_finite) endpoint_ = std::make_unique<ClaimsFinite>(std::move(endpoint_));
    CoordinatorParts parts;
    parts.settings.build = "toy";
    parts.settings.rounds = Version{6};
    parts.settings.eval_every = 2;
    parts.settings.checkpoint_every = 3;
    parts.settings.expected_workers = workers_;
    parts.settings.slot_count = slots;
    parts.settings.owned = [this](SlotId slot, Version version) { return schedule.owned(slot, version); };
    parts.store.run = folder_;
    parts.specs = small_specs();
    parts.method = method_;
    parts.merge = {.cut = schedule.at({0}).cut_params(),
                   .keeps_fast = options_.keeps_fast,
                   .brings_changes = options_.up.rounds()};
    parts.saves_later = options_.saves_later;
    parts.up = options_.up;
    parts.down = options_.down;
    parts.settings.fast_for_all = fast_for_all();
    parts.settings.slices = [this, fragments = fragment_rows(*method_, parts.specs)](FragmentId fragment,
                                                                                     Version version) {
      return slices_of_fragment(schedule.at(version), fragments.at(static_cast<std::size_t>(fragment.value)));
    };
    parts.settings.mode = options_.mode;
    parts.settings.quorum = options_.mode == Mode::drop ? slots / 2 : 0;
    parts.initial = random_tensors(small_specs(), 1);
    auto opened = Coordinator::open(std::move(parts), *endpoint_, clock, metrics);
    if (!opened.ok()) return opened.error();
    coordinator = std::move(*opened);
    coordinator->start();
    return {};
  }
  void add_worker(std::int32_t capacity = slots) {
    WorkPlan plan;
    plan.rounds = Version{6};
    plan.step_at = [](const std::vector<Version>& heads) { return steps * heads[0].value; };
    plan.fast_for_all = fast_for_all();
    plan.duties = [method = method_](std::int64_t step) {
      Duties duties;
      if (!method->due(step).adopt.empty()) duties.adopt = {FragmentId{0}};
      if (!method->due(step).push.empty()) duties.push = {FragmentId{0}};
      return duties;
    };
    workers.push_back(
        std::make_unique<ToyWorker>(hub_.make_worker(), ++made_, plan, disk_, schedule, capacity));
    if (options_.keeps_fast) workers.back()->keeps_fast = schedule.at({0}).cut_params();
    workers.back()->up = options_.up;
    workers.back()->down = options_.down;
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
  /// The same while workers end without a word and others take their place.
  bool finish_while_workers_die(KeyedRandom& random) {
    for (int i = 0; i < 3000 && !coordinator->done(); ++i) {
      pump();
      if (!random.chance(0.02) || workers.empty()) continue;
      workers.erase(workers.begin());
      add_worker();
    }
    return finish();
  }
  /// The same while the coordinator ends without a word, up to eight times, and comes back.
  bool finish_while_the_coordinator_dies(KeyedRandom& random) {
    for (int deaths = 0; deaths < 8 && !coordinator->done();) {
      pump();
      if (coordinator->done() || !random.chance(coordinator->is_saving() ? 0.5 : 0.1)) continue;
      ++deaths;
      lose_what_is_being_saved();
      if (!open().ok()) return false;
    }
    return finish();
  }
  void lose_what_is_being_saved() {
    if (!coordinator->is_saving()) return;
    const Version version = coordinator->state().version({0});
    coordinator.reset();
    std::filesystem::remove(state_file(folder_, version));  // if it was begun at all
    ++lost;
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

  PlanSchedule schedule;
  ManualClock clock;
  Metrics metrics;
  std::unique_ptr<Coordinator> coordinator;
  int lost = 0;  ///< versions that were published and not saved when the coordinator died
  std::vector<std::unique_ptr<ToyWorker>> workers;

 private:
  bool fast_for_all() const {
    return options_.keeps_fast && (options_.slices < slots || options_.rotate_every > 0);
  }

  Path folder_;
  std::int32_t workers_;
  RigOptions options_;
  InprocHub hub_;
  std::shared_ptr<const OuterMethod> method_;
  std::unique_ptr<Endpoint> endpoint_;
  SlotStates disk_;
  std::uint64_t made_ = 0;
};

}  // namespace tessera
