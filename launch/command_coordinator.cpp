// tessera coordinator: the coordinator's process, by hand or as a child of train and run.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/numerics.h"
#include "base/parallel.h"
#include "comm/transport/bulk_shared.h"
#include "comm/transport/zmq_endpoint.h"
#include "launch/commands.h"
#include "launch/coordinator_role.h"
#include "launch/machine.h"
#include "launch/prepare_run.h"
#include "launch/signals.h"
#include "monitoring/exporter.h"
#include "monitoring/log.h"

namespace tessera {
namespace {

/// Opens the sockets, where the predecessor's were if they are still known, so that workers need not look
/// again.
Result<std::unique_ptr<ZmqEndpoint>> open_endpoint(const RunDirectory& run, const Recipe& recipe,
                                                   const std::string& shared) {
  CoordinatorEndpointOptions options{.host = recipe.net.listen};
  options.control_port = static_cast<int>(recipe.net.port);
  options.bulk_port = recipe.net.port == 0 ? 0 : static_cast<int>(recipe.net.port) + 1;
  options.transport.shared_folder = shared;
  options.transport.looks_for_non_finite = true;
  auto port_of = [](const std::string& address) {
    return std::atoi(address.substr(address.rfind(':') + 1).c_str());
  };
  const Result<Endpoints> before = run.read_endpoints();
  if (recipe.net.port == 0 && before.ok() && before->host == host_name()) {
    CoordinatorEndpointOptions again = options;
    again.control_port = port_of(before->control);
    again.bulk_port = port_of(before->bulk);
    auto endpoint = make_coordinator_endpoint(again);
    if (endpoint.ok()) return endpoint;
  }
  return make_coordinator_endpoint(options);
}

constexpr int merge_threads = 8;  // at most: merges are bound by memory, which a few use up

int serve(const RunDirectory& run, const Recipe& recipe, bool shares_slots) {
  flush_denormals();
  const std::string shared = run.shared_memory();
  remove_deserted_folders(RunDirectory::shared_memory_prefix());
  auto endpoint = open_endpoint(run, recipe, shared);
  if (!endpoint.ok()) return report(endpoint.error());
  const SystemClock clock;
  const StopSignals signals;
  auto role = CoordinatorRole::make(run, recipe,
                                    {**endpoint, clock, static_cast<std::int32_t>(recipe.workers),
                                     shares_slots, std::min(merge_threads, hardware_threads()), true});
  if (!role.ok()) {
    return report(role.error());
  }
  auto exporter = Exporter::open((*role)->metrics(), static_cast<int>(recipe.net.metrics_port));
  if (!exporter.ok()) log_warning("no metrics page: ", exporter.error().message);
  const Status written = run.write_endpoints({.control = (*endpoint)->control_address(),
                                              .bulk = (*endpoint)->bulk_address(),
                                              .metrics = exporter.ok() ? (*exporter)->url() : "",
                                              .shared_folder = shared,
                                              .host = host_name(),
                                              .pid = getpid()});
  if (!written.ok()) return report(written.error());
  log_info("listening on ", (*endpoint)->control_address(), " (control) and ", (*endpoint)->bulk_address(),
           " (bulk)");
  log_info("waiting for ", recipe.workers, " workers: tessera worker --connect ", run.path());
  bool draining = false;
  while (!(*role)->done()) {
    if (signals.received() > 0 && !draining) {
      draining = true;
      (*role)->drain("stopped by a signal");
    }
    (*role)->pump(clock.now() + std::chrono::milliseconds(100));
  }
  endpoint->reset();                                                 // the last messages leave
  if ((*role)->exit_code() != static_cast<int>(ExitCode::fenced)) {  // else they are the successor's by now
    std::error_code ignored;
    std::filesystem::remove(run.endpoints(), ignored);
    remove_shared_folder(shared, (*role)->exit_code() != 0);
  }
  if ((*role)->exit_code() != 0) std::fprintf(stderr, "tessera coordinator: %s\n", (*role)->reason().c_str());
  return (*role)->exit_code();
}

}  // namespace

int command_coordinator(const CoordinatorOptions& options) {
  std::string out = options.train.out;
  std::shared_ptr<const Recipe> recipe;
  if (options.job.empty()) {  // started by hand: nobody has prepared the run directory
    const Result<PreparedRun> prepared = prepare_run(options.train);
    if (!prepared.ok()) return report(prepared.error());
    recipe = prepared->recipe;
    out = prepared->out;
  } else {
    Result<Recipe> parsed = load_recipe(options.train.recipe);
    if (!parsed.ok()) return report(parsed.error());
    recipe = std::make_shared<const Recipe>(std::move(*parsed));
  }
  open_log({.role = "coordinator", .file = {}, .level = log_level(), .to_stderr = true});
  return serve(RunDirectory(out), *recipe, !options.job.empty());
}

}  // namespace tessera
