#include "launch/worker_role.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>

#include "comm/transport/zmq_endpoint.h"
#include "launch/catalogs.h"
#include "launch/config/parse.h"
#include "launch/machine.h"
#include "launch/open_device.h"
#include "launch/run_directory.h"
#include "launch/signals.h"
#include "monitoring/log.h"
#include "worker/numerics.h"

namespace tessera {
namespace {

const Duration heartbeat_interval = std::chrono::milliseconds(500);
const Duration coordinator_start = std::chrono::minutes(10);  // it may be preparing data
const Duration look_again = std::chrono::milliseconds(500);

/// Where to connect: the addresses given, or what the run directory's endpoints.json says.
Result<WorkerEndpointOptions> addresses(const WorkerRoleOptions& options) {
  WorkerEndpointOptions endpoint{.control = options.control, .bulk = options.bulk};
  endpoint.transport.shared_folder = options.shared_folder;
  if (endpoint.control.empty()) {
    TESSERA_ASSIGN(const Endpoints found,
                   RunDirectory(options.run_directory).await_endpoints(coordinator_start));
    endpoint.control = found.control;
    endpoint.bulk = found.bulk;
    if (options.shared_folder.empty() && found.host == host_name())
      endpoint.transport.shared_folder = found.shared_folder;
  }
  endpoint.heartbeat_interval = heartbeat_interval;
  endpoint.transport.link = options.link;
  return endpoint;
}

/// A restarted coordinator may listen elsewhere: follows its endpoints.json.
class AddressWatch {
 public:
  AddressWatch(const WorkerRoleOptions& options, const WorkerEndpointOptions& now)
      : run_(options.run_directory), follows_(options.control.empty()), control_(now.control) {}
  void look(ZmqEndpoint& endpoint, Instant now) {
    if (!follows_ || now < next_) return;
    next_ = now + look_again;
    const Result<Endpoints> found = run_.read_endpoints();
    if (!found.ok() || found->control.empty() || found->control == control_) return;
    if (endpoint.reconnect(found->control, found->bulk).ok()) control_ = found->control;
  }

 private:
  RunDirectory run_;
  bool follows_;
  std::string control_;
  Instant next_{};
};

}  // namespace

Result<std::unique_ptr<WorkerParts>> make_worker_parts(const std::string& recipe_text,
                                                       const std::string& data_folder) {
  TESSERA_ASSIGN(Recipe parsed, parse_recipe(recipe_text, "the job's recipe", {}, builtin_catalogs()));
  auto recipe = std::make_shared<Recipe>(std::move(parsed));
  TESSERA_ASSIGN(const at::Device device, open_device(recipe->device));
  prepare_numerics(static_cast<int>(recipe->threads), device);
  TESSERA_ASSIGN(DataParts data, assemble_data(*recipe, data_folder));
  TESSERA_ASSIGN(ModelParts model, assemble_model(*recipe, data.prepared.vocab));
  auto parts = std::make_unique<WorkerParts>();
  parts->method = assemble_method(*recipe, model);
  parts->objective = assemble_objective(*recipe);
  parts->schedule = assemble_schedule(*recipe);
  parts->make_inner = [recipe] {
    return assemble_inner(*recipe);
  };  // also keeps the recipe, to which the method refers
  parts->trainer = {.seed = static_cast<std::uint64_t>(recipe->seed),
                    .batch = recipe->batch,
                    .clip = clip_settings(*recipe),
                    .steps_locally = parts->method->steps_locally(),
                    .eval_batches = recipe->eval.batches,
                    .trained_parameters = trained_elements(model.specs),
                    .uncut_flops = step_flops_uncut(model.specs, model.family->cost(), 1).total()};
  parts->cut = {.params = model.plan.cut_params(),
                .keeps_fast = recipe->partial.owner_view == "fast",
                .lr_scale = recipe->partial.inner_lr_scale};
  parts->up = assemble_up(*recipe, *parts->method);
  parts->down = assemble_down(*recipe);
  parts->device = device;
  parts->fast_for_all = fast_for_all(*recipe, model.plan);
  parts->slots = model.plan.slots;
  parts->owned = [schedule = model.schedule](SlotId slot, Version version) {
    return schedule.owned(slot, version);
  };
  HandOver moments = assemble_hand_over(*recipe, model, *parts->method);
  parts->moments = std::move(moments.moments);
  parts->brings_moments = std::move(moments.rows);
  const bool frozen = std::any_of(model.specs.begin(), model.specs.end(),
                                  [](const ParamSpec& spec) { return spec.role == Role::frozen; });
  if (frozen) {
    const Family* family = model.family.get();  // the parts keep it
    parts->set_frozen = [family, seed = static_cast<std::uint64_t>(recipe->seed)](ParamStore& params) {
      family->initialize(params, seed);
    };
  }
  if (model.family->scales_loss()) {
    parts->loss_scale = LossScale(recipe->inner.loss_scale);
    log_warning("fp16 is emulated on a processor: this is slower than fp32 (model.precision)");
  }
  parts->durability = recipe->durability == "machine" ? Durability::machine : Durability::process;
  parts->rounds = {recipe->rounds};
  parts->ready = {.data = data.source->digest(), .numerics = numerics_fingerprint(device)};
  parts->data = std::move(data.source);
  parts->family = std::move(model.family);
  return parts;
}

int run_worker_role(const WorkerRoleOptions& options) {
  auto endpoint_options = addresses(options);
  if (!endpoint_options.ok()) {
    std::fprintf(stderr, "tessera worker: %s\n", endpoint_options.error().message.c_str());
    return static_cast<int>(endpoint_options.error().code);
  }
  auto endpoint = make_worker_endpoint(*endpoint_options);
  if (!endpoint.ok()) {
    std::fprintf(stderr, "tessera worker: %s\n", endpoint.error().message.c_str());
    return static_cast<int>(endpoint.error().code);
  }
  const SystemClock clock;
  const StopSignals signals;
  Worker worker({.build = build_id(),
                 .host = machine_id(),
                 .pid = getpid(),
                 .capacity = options.capacity,
                 .recipe = {}},
                random_bits128(), **endpoint, clock);
  worker.set_configure(
      [&](const std::string& recipe) { return make_worker_parts(recipe, options.data_folder); });
  const std::string slots =
      options.slots_folder.empty() ? RunDirectory(options.run_directory).slots() : options.slots_folder;
  worker.set_slot_store(SlotStore(slots));
  AddressWatch addresses_now(options, *endpoint_options);
  worker.start();
  bool quitting = false;
  while (!worker.ended()) {
    if (signals.received() > 0 && !quitting) {
      quitting = true;
      worker.quit("stopped by a signal");
    }
    addresses_now.look(**endpoint, clock.now());
    worker.pump(clock.now() + std::chrono::milliseconds(100));
  }
  const auto& end = *worker.ended();
  log(end.code == ExitCode::done ? LogLevel::info : LogLevel::error, "worker ends: ", end.reason);
  return static_cast<int>(end.code);
}

}  // namespace tessera
