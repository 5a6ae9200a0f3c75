#include "launch/assemble.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "base/set_numbers.h"
#include "base/text.h"
#include "comm/codec.h"
#include "comm/hash.h"
#include "comm/storage/files.h"
#include "optim/gradient_step.h"
#include "optim/outer_gain.h"
#include "worker/torch_bridge.h"

namespace tessera {
namespace {

template <class Product>
std::unique_ptr<Product> make(const Choice& choice, const typename Product::Context& context) {
  return Registry<Product>::builtin().make(choice.name, *choice.settings, context);
}

std::int64_t context_of(const Recipe& recipe, std::int64_t vocab) {
  return make<Family>(recipe.model.family, {.vocab = vocab})->cost().context;
}

/// Bytes of a piece of so many parameters.
using PieceBytes = std::function<double(std::int64_t)>;
PieceBytes bytes_of(const Wire& wire) {
  return [codec = wire.codec](std::int64_t elements) {
    return static_cast<double>(codec->encoded_bytes(static_cast<std::size_t>(elements)));
  };
}

double per_parameter(const PieceBytes& bytes) {
  constexpr std::int64_t many = 1 << 20;
  return bytes(many) / static_cast<double>(many);
}

/// What a recipe asks for that this method's way of encoding does not allow.
std::vector<std::string> wire_problems(const Recipe& recipe, const OuterMethod& method) {
  std::vector<std::string> found;
  const std::string name = "\" does not go with outer.name = \"" + recipe.outer.method.name + "\"";
  const auto rounds = [](const Choice& codec) { return !make<Codec>(codec, {})->carries_values(); };
  const auto refuse = [&](const char* way, const Choice& codec, const char* reason) {
    found.push_back(std::string("codec.") + way + " = \"" + codec.name + name + reason);
  };
  if (rounds(recipe.codec.up)) {
    if (method.encoding())
      refuse("up", recipe.codec.up,
             ", which says itself how contributions are encoded; leave it at \"fp32\"");
    if (!method.own_state_names().empty())
      refuse("up", recipe.codec.up,
             ", whose slots go on from what they bring, which must arrive as it is; set codec.up = \"fp32\"");
    if (method.share() < 1)
      refuse("up", recipe.codec.up, ", of which few values travel, as they are; set codec.up = \"fp32\"");
  }
  if (rounds(recipe.codec.down) && method.share() < 1)
    refuse("down", recipe.codec.down, ", of which few values travel, as they are; set codec.down = \"fp32\"");
  return found;
}

}  // namespace

std::int64_t trained_elements(const std::vector<ParamSpec>& specs) {
  std::int64_t total = 0;
  for (const ParamSpec& spec : specs) total += spec.role == Role::weight ? spec.elements() : 0;
  return total;
}

Result<ModelParts> assemble_model(const Recipe& recipe, std::int64_t vocab) {
  ModelParts parts;
  parts.family = make<Family>(recipe.model.family, {.vocab = vocab});
  TESSERA_ASSIGN(parts.specs, trained_specs(parts.family->specs(), recipe.partial));
  TESSERA_ASSIGN(parts.schedule,
                 PlanSchedule::make(parts.specs, parts.family->cuts(), recipe.partial,
                                    static_cast<std::int32_t>(recipe.slots), parts.family->cost()));
  parts.plan = parts.schedule.at({0});
  if (recipe.device != "cpu" && parts.family->frozen_rows() != FrozenRows::fp32) {
    return fail(
        ExitCode::usage, "device = \"", recipe.device,
        "\" does not go with model.precision = \"bf16\", whose kernels are the CPU's; \"fp32\" runs there");
  }
  const std::shared_ptr<const OuterMethod> method = assemble_method(recipe, parts);
  if (parts.family->scales_loss() && !method->steps_locally()) {
    return fail(
        ExitCode::usage, "outer.name = \"", recipe.outer.method.name,
        "\" steps in the coordinator, which knows no loss scale: model.precision = \"fp16\" needs a method "
        "whose slots step, like \"diloco\"");
  }
  const std::unique_ptr<InnerOptimizer> inner = assemble_inner(recipe);
  if (inner->moments_per_parameter(true) != inner->moments_per_parameter(false) &&
      assemble_hand_over(recipe, parts, *method).is_on()) {
    return fail(ExitCode::usage, "inner.name = \"", recipe.inner.optimizer.name,
                "\" keeps other moments of some parameters than of others, so that they cannot travel as "
                "partial.rotate_state = \"hand_over\" and outer.name = \"des_loc\" want");
  }
  std::vector<std::string> problems = parts.family->problems();
  for (std::string& problem : method->problems()) problems.push_back(std::move(problem));
  for (std::string& problem : wire_problems(recipe, *method)) problems.push_back(std::move(problem));
  if (!problems.empty()) return Error{ExitCode::usage, join(problems, "\n")};
  return parts;
}

TensorMap initial_parameters(const Family& family, std::uint64_t seed) {
  ParamStore params(family.specs());
  family.initialize(params, seed);
  TensorMap tensors;
  for (const auto& [name, parameter] : params.all()) tensors.emplace(name, host_copy(parameter.full));
  return tensors;
}

Result<DataParts> assemble_data(const Recipe& recipe, const std::string& folder,
                                const PrepareProgress& progress) {
  DataParts parts;
  // The length of a sample does not depend on the vocabulary, so any size will do to ask for it.
  const std::int64_t context = context_of(recipe, 256);
  PrepareRequest request{.path = folder.empty() ? recipe.data.path : folder,
                         .tokenizer = recipe.data.tokenizer.name,
                         .settings = recipe.data.tokenizer.settings.get(),
                         .vocab = recipe.model.vocab,
                         .context = context};
  TESSERA_ASSIGN(parts.prepared, prepare_text(request, progress));
  parts.source = make<DataSource>(recipe.data.source, {.path = parts.prepared.folder,
                                                       .seed = static_cast<std::uint64_t>(recipe.seed),
                                                       .slots = static_cast<std::int32_t>(recipe.slots),
                                                       .context = context});
  TESSERA_TRY(parts.source->open());
  return parts;
}

std::unique_ptr<Objective> assemble_objective(const Recipe& recipe) {
  return make<Objective>(recipe.objective.objective, {});
}

std::unique_ptr<Schedule> assemble_schedule(const Recipe& recipe) {
  return make<Schedule>(recipe.schedule.schedule, {.horizon = recipe.horizon()});
}

std::unique_ptr<InnerOptimizer> assemble_inner(const Recipe& recipe) {
  return make<InnerOptimizer>(recipe.inner.optimizer, {});
}

ClipSettings clip_settings(const Recipe& recipe) {
  using Mode = ClipSettings::Mode;
  if (recipe.inner.clip <= 0 || recipe.inner.clip_mode == "off") return {.mode = Mode::off};
  return {.mode = recipe.inner.clip_mode == "scaled" ? Mode::scaled : Mode::local,
          .max_norm = recipe.inner.clip};
}

HandOver assemble_hand_over(const Recipe& recipe, const ModelParts& model, const OuterMethod& method) {
  const std::vector<std::string> moments = assemble_gradient_step(recipe, model.specs)->state_names();
  const PlanSchedule& schedule = model.schedule;
  if (recipe.partial.rotate_state == "hand_over" && recipe.partial.rotate_every > 0 &&
      method.steps_locally()) {
    return {
        .moments = moments,
        .params = schedule.cut_parameters(),
        .rows = [schedule](const std::string&, SlotId slot,
                           Version version) { return schedule.handed_over(slot, version); },
        .is_due = [schedule](const std::string&, Version version) { return schedule.changes_at(version); }};
  }
  HandOver averaged;
  std::map<std::string, std::int64_t> every;
  for (const std::string& moment : moments) {
    every[moment] = method.merges_per_moment(moment);
    if (every[moment] > 0) averaged.moments.push_back(moment);
  }
  if (!averaged.is_on()) return averaged;
  for (const ParamSpec& spec : model.specs) {
    if (spec.role == Role::weight) averaged.params.push_back(spec.name);
  }
  averaged.is_due = [every](const std::string& moment, Version version) {
    return version.value % every.at(moment) == 0;
  };
  averaged.rows = [schedule, is_due = averaged.is_due](const std::string& moment, SlotId slot,
                                                       Version version) {
    return is_due(moment, {version.value + 1}) ? schedule.owned(slot, version) : RowSet();
  };
  return averaged;
}

std::unique_ptr<GradientStep> assemble_gradient_step(const Recipe& recipe,
                                                     const std::vector<ParamSpec>& specs) {
  GradientStepSettings step{.make_optimizer = [&recipe] { return assemble_inner(recipe); },
                            .schedule = assemble_schedule(recipe),
                            .clip = clip_settings(recipe),
                            .all_parameters = trained_elements(specs),
                            .cut_lr_scale = recipe.partial.inner_lr_scale};
  return make_gradient_step(std::move(step));
}

namespace {

/// Slices that move in one merge.
std::int32_t moving_slices(const Recipe& recipe) {
  return recipe.partial.cut == "none" || recipe.partial.blocks()
             ? 1
             : static_cast<std::int32_t>(recipe.partial.slices);
}

double cut_momentum_of(const Recipe& recipe) {
  if (!std::isnan(recipe.outer.cut_momentum)) return recipe.outer.cut_momentum;
  if (recipe.outer.rule == "adam") return recipe.outer.momentum;  // its steps do not grow with the delta
  if (!std::isnan(recipe.outer.cut_lr)) return 0;                 // it was made for the automatic rate
  // A slow copy follows a value that is kept anyway: nothing is left out that momentum could bring in.
  return recipe.partial.owner_view == "fast" ? 0.0
                                             : cut_momentum(moving_slices(recipe), recipe.outer.momentum);
}

}  // namespace

std::shared_ptr<const OuterMethod> assemble_method(const Recipe& recipe, const ModelParts& model) {
  OuterMethod::Context context{.specs = model.specs,
                               .steps = recipe.sync.steps,
                               .rule = recipe.outer.rule,
                               .lr = recipe.outer.lr,
                               .momentum = recipe.outer.momentum,
                               .cut = OuterStep{recipe.outer.cut_lr, cut_momentum_of(recipe)},
                               .slots = static_cast<std::int32_t>(recipe.slots),
                               .slices = moving_slices(recipe),
                               .slice_rows = model.schedule.slice_rows(),
                               .seed = static_cast<std::uint64_t>(recipe.seed),
                               .adam = {recipe.outer.beta2, recipe.outer.epsilon},
                               .weight_decay = recipe.outer.weight_decay,
                               .restart_every = recipe.outer.restart_every,
                               .rotates = recipe.partial.rotate_every > 0,
                               .keeps_fast = recipe.partial.owner_view == "fast",
                               .drops = recipe.mode == "drop",
                               .quorum = static_cast<std::int32_t>(recipe.sync.quorum),
                               .gradient_step = assemble_gradient_step(recipe, model.specs)};
  return make<OuterMethod>(recipe.outer.method, context);
}

namespace {

/// Moments of a row that travel with a merge because the method averages them, on average.
double moments_per_merge(const Recipe& recipe, const ModelParts& model, const OuterMethod& method) {
  double sum = 0;
  if (recipe.partial.rotate_every > 0) return sum;  // those that are handed over are not counted here
  for (const std::string& moment : assemble_hand_over(recipe, model, method).moments)
    sum += 1 / static_cast<double>(method.merges_per_moment(moment));
  return sum;
}

}  // namespace

Wire assemble_up(const Recipe& recipe, const OuterMethod& method) {
  const std::optional<Encoding> own = method.encoding();
  if (!own) return {make<Codec>(recipe.codec.up, {}), recipe.codec.up_feedback};
  const std::unique_ptr<Settings> settings = Registry<Codec>::builtin().make_settings(own->codec);
  set_numbers(*settings, own->settings);
  return {Registry<Codec>::builtin().make(own->codec, *settings, {}), own->feedback};
}

Wire assemble_down(const Recipe& recipe) {
  return {make<Codec>(recipe.codec.down, {}), recipe.codec.down_feedback};
}

MergeSettings merge_settings(const Recipe& recipe, const OuterMethod& method, const Plan& plan) {
  return {.cut = plan.cut_params(),
          .keeps_fast = recipe.partial.owner_view == "fast",
          .average_over =
              recipe.partial.average == "slots" ? static_cast<std::int32_t>(recipe.slots) : std::int32_t{0},
          .brings_changes = assemble_up(recipe, method).rounds()};
}

bool fast_for_all(const Recipe& recipe, const Plan& plan) {
  if (recipe.partial.owner_view != "fast") return false;
  if (recipe.partial.rotate_every > 0) return true;
  const std::set<std::string> cut = plan.cut_params();
  return std::any_of(plan.slices.begin(), plan.slices.end(), [&](const Slice& slice) {
    return slice.owners.size() > 1 && std::any_of(slice.rows.begin(), slice.rows.end(),
                                                  [&](const auto& rows) { return cut.contains(rows.first); });
  });
}

namespace {

/// What the coordinator keeps of a parameter: outer state, fast values, residuals, moments on their way.
std::function<double(const ParamSpec&, bool cut)> outer_states(const Recipe& recipe, const ModelParts& model,
                                                               std::shared_ptr<const OuterMethod> method) {
  const bool residual = assemble_down(recipe).keeps_residual(), fast = recipe.partial.owner_view == "fast";
  const HandOver hand_over = assemble_hand_over(recipe, model, *method);
  return [=, moments = hand_over.moments.size(),
          moved = std::set<std::string>(hand_over.params.begin(), hand_over.params.end())](
             const ParamSpec& spec, bool cut) {
    const auto own = (cut ? method->cut_state_names() : method->state_names()).size();
    const std::size_t more =
        (cut && fast ? 1 : 0) + (residual ? 1 : 0) + (moved.contains(spec.name) ? moments : 0);
    return static_cast<double>(own + more);
  };
}

}  // namespace

CostSettings cost_settings(const Recipe& recipe, const ModelParts& model) {
  const std::shared_ptr<const OuterMethod> method = assemble_method(recipe, model);
  const std::shared_ptr<InnerOptimizer> inner = assemble_inner(recipe);
  const CostModel shape = model.family->cost();
  const double tokens = static_cast<double>(recipe.batch * std::max<std::int64_t>(shape.context, 1));
  const double moments = moments_per_merge(recipe, model, *method), share = method->share();
  const auto on_the_wire = [&](const Wire& wire) -> PieceBytes {
    if (share == 1 && moments == 0) return bytes_of(wire);
    return [encoded = bytes_of(wire), share, moments](std::int64_t elements) {
      return share * encoded(elements) + moments * 4 * static_cast<double>(elements);
    };
  };
  const PieceBytes up = on_the_wire(assemble_up(recipe, *method)), down = on_the_wire(assemble_down(recipe));
  return {.tokens_per_step = tokens,
          .sequences = static_cast<double>(recipe.batch),
          .objective = assemble_objective(recipe)->memory(tokens, shape.outputs),
          .steps = method->steps_per_merge(),
          .moments =
              [inner](const ParamSpec& spec) { return inner->moments_per_parameter(is_hidden_matrix(spec)); },
          .slot_states = static_cast<double>(method->own_state_names().size()) +
                         (assemble_up(recipe, *method).keeps_residual() ? 1 : 0),
          .outer_states = outer_states(recipe, model, method),
          .deltas = deltas_of(*method, merge_settings(recipe, *method, model.plan)),
          .steps_locally = method->steps_locally(),
          .bytes_up = per_parameter(up),
          .bytes_down = per_parameter(down),
          .piece_bytes_up = up,
          .piece_bytes_down = down,
          .fragments = fragment_rows(*method, model.specs),
          .updates = assemble_down(recipe).rounds() || share < 1,
          .fetches_fast = fast_for_all(recipe, model.plan)};
}

}  // namespace tessera
