#include "launch/coordinator_role.h"

#include "comm/hash.h"
#include "coordinator/coordinator.h"
#include "launch/assemble.h"
#include "launch/config/write.h"
#include "launch/machine.h"

namespace tessera {
namespace {

/// What must be equal for tensors of a checkpoint to make sense in a model.
Digest model_digest(const std::vector<ParamSpec>& specs) {
  Hasher hasher;
  for (const ParamSpec& spec : specs) {
    hasher.add(spec.name).add(std::string_view("\0", 1)).add(static_cast<std::uint64_t>(spec.shape.size()));
    for (std::int64_t dimension : spec.shape) hasher.add(static_cast<std::uint64_t>(dimension));
  }
  return hasher.digest();
}

CoordinatorSettings settings_of(const Recipe& recipe, const ModelParts& model, const OuterMethod& method,
                                std::int32_t workers) {
  CoordinatorSettings settings;
  settings.build = build_id();
  settings.recipe_text = write_recipe(recipe);
  settings.recipe = digest_of(settings.recipe_text);
  settings.rounds = {recipe.rounds};
  settings.mode = recipe.mode == "drop" ? Mode::drop : Mode::exact;
  settings.quorum = static_cast<std::int32_t>(recipe.sync.quorum);
  settings.deadline = from_seconds(recipe.sync.deadline);
  settings.arrivals_per_merge = method.arrivals_per_merge();
  settings.takes_late = method.takes_late();
  settings.window = method.grace();
  settings.dynamic = method.dynamic_steps();
  if (settings.window && settings.quorum == 0) settings.quorum = 1;
  settings.eval_every = recipe.eval.every;
  settings.checkpoint_every = recipe.checkpoint.every;
  settings.lease = from_seconds(recipe.net.lease_seconds);
  settings.expected_workers = workers;
  settings.fast_for_all = fast_for_all(recipe, model.plan);
  settings.slot_count = model.plan.slots;
  settings.owned = [schedule = model.schedule](SlotId slot, Version version) {
    return schedule.owned(slot, version);
  };
  settings.slices = [schedule = model.schedule, fragments = fragment_rows(method, model.specs)](
                        FragmentId fragment, Version version) {
    return slices_of_fragment(schedule.at(version), fragments.at(static_cast<std::size_t>(fragment.value)));
  };
  return settings;
}

class LiveRole final : public CoordinatorRole {
 public:
  Status open(const RunDirectory& run, const Recipe& recipe, CoordinatorSurroundings surroundings) {
    TESSERA_ASSIGN(const DataParts data, assemble_data(recipe));
    TESSERA_ASSIGN(const ModelParts model, assemble_model(recipe, data.prepared.vocab));
    const std::shared_ptr<const OuterMethod> method = assemble_method(recipe, model);
    MergeSettings merge = merge_settings(recipe, *method, model.plan);
    merge.threads = surroundings.threads;
    CoordinatorParts parts{
        .settings = settings_of(recipe, model, *method, surroundings.expected_workers),
        .store = {.run = run.path(),
                  .durability = recipe.durability == "machine" ? Durability::machine : Durability::process,
                  .keep = static_cast<std::size_t>(recipe.checkpoint.keep),
                  .model = model_digest(model.specs),
                  .shared = run.shared_memory()},
        .specs = model.specs,
        .method = method,
        .merge = std::move(merge),
        .hand_over = assemble_hand_over(recipe, model, *method),
        .up = assemble_up(recipe, *method),
        .down = assemble_down(recipe),
        .trained = [schedule = model.schedule](Version version) { return schedule.trained(version); },
        .initial = initial_parameters(*model.family, static_cast<std::uint64_t>(recipe.seed)),
        .saves_later = surroundings.saves_later && recipe.durability == "process",
        .slots_folder = surroundings.shares_slots ? run.slots() : std::string(),
        .host = machine_id(),
        .unit = data.source->unit()};
    TESSERA_ASSIGN(coordinator_,
                   Coordinator::open(std::move(parts), surroundings.endpoint, surroundings.clock, metrics_));
    coordinator_->start();
    return {};
  }

  void pump(Instant wait_until) override { coordinator_->pump(wait_until); }
  bool done() const override { return coordinator_->done(); }
  int exit_code() const override { return static_cast<int>(coordinator_->finish().code); }
  std::string reason() const override { return coordinator_->finish().reason; }
  void drain(const std::string& reason) override { coordinator_->drain(reason); }
  const Metrics& metrics() const override { return metrics_; }

 private:
  Metrics metrics_;
  std::unique_ptr<Coordinator> coordinator_;
};

}  // namespace

Result<std::unique_ptr<CoordinatorRole>> CoordinatorRole::make(const RunDirectory& run, const Recipe& recipe,
                                                               CoordinatorSurroundings surroundings) {
  auto role = std::make_unique<LiveRole>();
  TESSERA_TRY(role->open(run, recipe, surroundings));
  return std::unique_ptr<CoordinatorRole>(std::move(role));
}

}  // namespace tessera
