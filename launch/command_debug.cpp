// tessera debug: coordinator and one worker with all slots in one process and one thread, no sockets. The
// same machines, messages and arithmetic as the processes of train, so the same hashes; made for gdb, for
// learning and for tests.
#include <algorithm>
#include <cstdio>

#include "base/clock.h"
#include "comm/transport/bulk_shared.h"
#include "comm/transport/inproc_endpoint.h"
#include "launch/commands.h"
#include "launch/coordinator_role.h"
#include "launch/machine.h"
#include "launch/prepare_run.h"
#include "launch/progress.h"
#include "launch/signals.h"
#include "launch/worker_role.h"
#include "monitoring/log.h"

namespace tessera {
namespace {

/// Time as the protocol sees it: it follows the real clock, but a long step (or a breakpoint) counts as this
/// much only, so that no lease runs out while the one thread is elsewhere.
class PacedClock final : public Clock {
 public:
  Instant now() const override { return now_; }
  void follow() {
    const Instant real = system_.now();
    now_ += std::min(real - last_, longest_);
    last_ = real;
  }

 private:
  const Duration longest_ = std::chrono::milliseconds(100);
  SystemClock system_;
  Instant last_ = system_.now(), now_ = last_;
};

int run_in_one_thread(const PreparedRun& prepared, const TrainOptions& options) {
  const Recipe& recipe = *prepared.recipe;
  const RunDirectory run(prepared.out);
  PacedClock clock;
  InprocHub hub;
  const std::unique_ptr<Endpoint> coordinator_end = hub.make_coordinator(), worker_end = hub.make_worker();
  auto coordinator = CoordinatorRole::make(run, recipe, {*coordinator_end, clock, 1});
  if (!coordinator.ok()) return report(coordinator.error());
  Worker worker({.build = build_id(), .host = "debug", .capacity = static_cast<std::int32_t>(recipe.slots)},
                random_bits128(), *worker_end, clock);
  worker.set_configure([](const std::string& text) { return make_worker_parts(text, {}); });
  worker.set_slot_store(SlotStore(run.slots()));
  const std::vector<RoundRow> before = options.resume ? read_rows(run.metrics()) : std::vector<RoundRow>{};
  ProgressPrinter printer(recipe.rounds, prepared.unit, options.quiet, before);
  MetricsTail tail(run.metrics(), before);
  const StopSignals signals;
  const SystemClock wall;  // people want real rates
  printer.begin(wall.now());
  worker.start();
  bool draining = false;
  while (!(*coordinator)->done()) {
    clock.follow();
    (*coordinator)->pump(clock.now());
    worker.pump(clock.now());
    if (const auto& ended = worker.ended();
        ended && ended->code != ExitCode::done && !(*coordinator)->done()) {
      return report({ended->code, ended->reason});
    }
    while (auto row = tail.next()) printer.print(*row, wall.now());
    if (signals.received() > 1) return static_cast<int>(ExitCode::resumable);
    if (signals.received() > 0 && !draining) (*coordinator)->drain("stopped by Ctrl-C"), draining = true;
  }
  while (auto row = tail.next()) printer.print(*row, wall.now());
  if ((*coordinator)->exit_code() != 0)
    std::fprintf(stderr, "tessera: %s\n", (*coordinator)->reason().c_str());
  // Of a run that train began: what was kept there is merged by now, or in the run directory.
  remove_shared_folder(run.shared_memory(), (*coordinator)->exit_code() != 0);
  return (*coordinator)->exit_code();
}

}  // namespace

int command_debug(const TrainOptions& options) {
  const Result<PreparedRun> prepared = prepare_run(options);
  if (!prepared.ok()) return report(prepared.error());
  const NetSettings& net = prepared->recipe->net;
  const auto slow = [](const std::vector<double>& values) {
    return std::ranges::any_of(values, [](double value) { return value > 0; });
  };
  if (slow(net.bandwidth) || slow(net.latency)) {
    std::fprintf(stderr,
                 "tessera: debug has no links: net.bandwidth and net.latency count with train only\n");
  }
  open_log({.role = "debug",
            .file = RunDirectory(prepared->out).text_log("debug"),
            .level = log_level(),
            .to_stderr = false});
  return finish_run("debug", run_in_one_thread(*prepared, options), *prepared, options);
}

}  // namespace tessera
