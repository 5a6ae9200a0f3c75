#include "launch/run_processes.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/ids.h"
#include "base/text.h"
#include "comm/transport/bulk_shared.h"
#include "launch/progress.h"
#include "launch/signals.h"

namespace tessera {
namespace {

/// Big freed blocks go back to the allocator, not to the kernel, and lie on huge pages: measured 1.03-1.18x
/// of a training step.
constexpr const char* allocator_settings =
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296";

std::map<std::string, std::string> allocator_environment() {
  if (std::getenv("GLIBC_TUNABLES") != nullptr) return {};
  return {{"GLIBC_TUNABLES", allocator_settings}};
}

std::map<std::string, std::string> worker_environment(const std::string& number) {
  std::map<std::string, std::string> environment = allocator_environment();
  environment.emplace("TESSERA_WORKER", number);  // open_device() reads it
  return environment;
}

}  // namespace

ChildSpec coordinator_child(const RunDirectory& run, bool resume) {
  std::vector<std::string> arguments = {own_program(), "coordinator", run.recipe(),          "--out",
                                        run.path(),    "--job",       random_bits128().hex()};
  if (resume) arguments.push_back("--resume");
  return {.name = "coordinator",
          .process = {.arguments = arguments,
                      .environment = allocator_environment(),
                      .output_file = run.text_log("coordinator")},
          .restart_arguments = resume ? std::vector<std::string>{} : std::vector<std::string>{"--resume"},
          .decides = true};
}

ChildSpec worker_child(const RunDirectory& run, const NetSettings& net, std::int64_t number,
                       std::int64_t capacity) {
  const std::string text = std::to_string(number);
  std::vector<std::string> arguments = {own_program(), "worker",     "--connect",
                                        run.path(),    "--capacity", std::to_string(capacity)};
  for (const auto& [flag, values] :
       {std::pair{"--link-mbits", &net.bandwidth}, {"--link-latency", &net.latency}}) {
    if (values->empty()) continue;
    const double value = (*values)[static_cast<std::size_t>(number) % values->size()];
    arguments.insert(arguments.end(), {flag, format_double(value)});
  }
  return {.name = "worker " + text,
          .process = {.arguments = arguments,
                      .environment = worker_environment(text),
                      .output_file = run.text_log("worker-" + text)},
          .restart_arguments = {}};
}

std::int64_t worker_capacity(const Recipe& recipe, std::int64_t workers) {
  return (recipe.slots + workers - 1) / workers;
}

int supervise(const RunDirectory& run, std::vector<ChildSpec> children, const SuperviseOptions& options) {
  const std::vector<RoundRow> before = options.resume ? read_rows(run.metrics()) : std::vector<RoundRow>{};
  const SystemClock clock;
  const StopSignals signals;
  ProgressPrinter printer(options.rounds, options.unit, options.quiet, before);
  MetricsTail tail(run.metrics(), before);
  Supervisor supervisor(std::move(children),
                        [](const std::string& line) { std::fprintf(stderr, "tessera: %s\n", line.c_str()); });
  if (const Status started = supervisor.start(); !started.ok()) {
    std::fprintf(stderr, "tessera: %s\n", started.error().message.c_str());
    return static_cast<int>(started.error().code);
  }
  printer.begin(clock.now());
  bool told_address = options.quiet;
  int stops = 0;
  for (;;) {
    const std::optional<int> code = supervisor.poll(clock.now());
    if (options.owns_run && !told_address) {
      const Result<Endpoints> endpoints = run.read_endpoints();
      if (endpoints.ok() && !endpoints->metrics.empty()) {
        std::printf("metrics: %s\n", endpoints->metrics.c_str());
        told_address = true;
      }
    }
    while (auto row = options.owns_run ? tail.next() : std::nullopt) printer.print(*row, clock.now());
    if (code) {
      // A coordinator that was killed could not clean up after itself; one that is fenced leaves the memory
      // to whoever has the run.
      if (options.owns_run && *code != static_cast<int>(ExitCode::fenced))
        remove_shared_folder(run.shared_memory(), *code != 0);
      return *code;
    }
    if (signals.received() > stops) {
      ++stops;
      std::fprintf(stderr, "\ntessera: %s\n",
                   stops == 1 ? "stopping after a checkpoint; once more stops at once" : "stopped");
      supervisor.stop();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace tessera
