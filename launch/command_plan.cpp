// `tessera plan`: what a recipe will cost, computed from its shapes alone. No corpus is read and nothing is
// trained.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "coordinator/cost.h"
#include "data/tokenizer.h"
#include "launch/assemble.h"
#include "launch/commands.h"
#include "launch/simulate/recipe_workload.h"
#include "launch/simulate/simulate.h"

namespace tessera {
namespace {

/// Where neither the recipe nor the tokenizer says how many tokens there are (it will learn them from the
/// corpus).
constexpr std::int64_t assumed_vocab = 2048;

/// What the recipe asks for; 0: known only after the tokenizer has seen the corpus.
std::int64_t known_vocab(const Recipe& recipe) {
  if (recipe.model.vocab > 0) return recipe.model.vocab;
  const Choice& tokenizer = recipe.data.tokenizer;
  return Registry<Tokenizer>::builtin().make(tokenizer.name, *tokenizer.settings, {})->vocab();
}

struct Planned {
  Recipe recipe;
  ModelParts model;
  std::int64_t vocab = 0;
  CostSettings settings;
  CostReport cost;
  Workload workload;
};

Result<Planned> make_planned(const RecipeOptions& options) {
  TESSERA_ASSIGN(Recipe recipe, load_recipe(options));
  const std::int64_t known = known_vocab(recipe), vocab = known > 0 ? known : assumed_vocab;
  TESSERA_ASSIGN(ModelParts model, assemble_model(recipe, vocab));
  const CostModel shape = model.family->cost();
  const CostSettings settings = cost_settings(recipe, model);
  CostReport cost = cost_of(model.plan, model.specs, shape, settings);
  const std::shared_ptr<const OuterMethod> method = assemble_method(recipe, model);
  Workload workload =
      workload_of(model.plan, model.specs, shape, *method, settings, static_cast<double>(recipe.workers));
  if (known == 0) {
    cost.notes.push_back("a vocabulary of " + std::to_string(vocab) +
                         " tokens is assumed; model.vocab says how many the tokenizer learns");
  }
  return Planned{std::move(recipe), std::move(model), vocab, settings, std::move(cost), std::move(workload)};
}

double frozen_elements(const std::vector<ParamSpec>& specs) {
  double frozen = 0;
  for (const ParamSpec& spec : specs)
    frozen += spec.role == Role::frozen ? static_cast<double>(spec.elements()) : 0;
  return frozen;
}

/// The cost of a slot by name; a method that is compared with has no number.
nlohmann::ordered_json slot_json(const SlotCost& slot) {
  nlohmann::ordered_json json;
  if (slot.slot >= 0) json["slot"] = slot.slot;
  json.update({{"parameters", slot.owned_parameters},
               {"trainable_share", slot.trainable_share},
               {"flops_per_step", slot.step.total()},
               {"flops_forward", slot.step.forward},
               {"flops_activation_gradient", slot.step.activation_backward},
               {"flops_weight_gradient", slot.step.weight_gradient},
               {"static_bytes", slot.memory.total()},
               {"weight_bytes", slot.memory.weights},
               {"gradient_bytes", slot.memory.gradients},
               {"moment_bytes", slot.memory.moments},
               {"anchor_bytes", slot.memory.anchor},
               {"method_bytes", slot.memory.method},
               {"activation_bytes", slot.activations},
               {"peak_bytes", slot.peak},
               {"received_bytes", slot.received},
               {"bytes_up", slot.bytes_up},
               {"bytes_down", slot.bytes_down},
               {"bytes_up_in_one_merge", slot.merge_up},
               {"bytes_down_in_one_merge", slot.merge_down}});
  return json;
}

/// One round as `tessera simulate RECIPE` predicts it.
struct RoundTime {
  double compute_seconds = 0, sync_seconds = 0, utilisation = 1;
  double total() const { return compute_seconds + sync_seconds; }
};
RoundTime predict_round(const Planned& p, const PlanOptions& options) {
  const Outcome outcome = simulate(p.workload, {.flops_per_second = options.gflops * 1e9,
                                                .up_bits = options.mbits * 1e6,
                                                .down_bits = options.mbits * 1e6});
  const double rounds = outcome.steps / static_cast<double>(p.settings.steps);
  return {outcome.compute_seconds / rounds, outcome.waiting_seconds() / rounds,
          outcome.compute_utilisation()};
}

nlohmann::ordered_json prediction_json(const RoundTime& time) {
  return {{"compute_seconds", time.compute_seconds},
          {"sync_seconds", time.sync_seconds},
          {"compute_utilisation", time.utilisation}};
}

void print_json(const Planned& p, const PlanOptions& options) {
  const CostReport& cost = p.cost;
  nlohmann::ordered_json json = {
      {"parameters", cost.parameters},
      {"vocab", p.vocab},
      {"trainable_share", cost.mean_share},
      {"flops_saved", cost.flops_saved()},
      {"memory_saved", cost.memory_saved()},
      {"peak_saved", cost.peak_saved()},
      {"bytes_saved", cost.bytes_saved()},
      {"memory_saved_against_data_parallel", cost.memory_saved_against_data_parallel()},
      {"bytes_saved_against_data_parallel", cost.bytes_saved_against_data_parallel()},
      {"bytes_up_in_one_merge", cost.total.merge_up},
      {"bytes_down_in_one_merge", cost.total.merge_down},
      {"coordinator_bytes", cost.coordinator_bytes},
      {"steps_per_merge", p.settings.steps},
      {"frozen_parameters", frozen_elements(p.model.specs)},
      {"rotation_cycle", p.model.schedule.cycle()},
      {"diloco", slot_json(cost.diloco)},
      {"data_parallel", slot_json(cost.data_parallel)},
      {"slots", nlohmann::ordered_json::array()},
      {"slices", nlohmann::ordered_json::array()},
      {"notes", cost.notes}};
  for (const SlotCost& slot : cost.slots) json["slots"].push_back(slot_json(slot));
  for (const Slice& slice : p.model.plan.slices) {
    json["slices"].push_back({{"name", slice.name},
                              {"parameters", elements_in(slice.rows, p.model.specs)},
                              {"owners", slice.owners}});
  }
  if (options.gflops > 0) json["round"] = prediction_json(predict_round(p, options));
  std::printf("%s\n", json.dump(2).c_str());
}

std::string rate_text(double lr) {
  return std::isnan(lr) ? "auto" : format_double(lr);
}

void print_head(const Planned& p, const PlanOptions& options) {
  const Recipe& r = p.recipe;
  const double tokens = p.settings.tokens_per_step * static_cast<double>(r.slots * r.horizon());
  std::printf("Plan of %s (everything below is computed, nothing measured)\n\n", options.recipe.file.c_str());
  std::printf("Model      %s, %s parameters, vocabulary %lld, context %lld\n", r.model.family.name.c_str(),
              format_count(p.cost.parameters).c_str(), static_cast<long long>(p.vocab),
              static_cast<long long>(p.model.family->cost().context));
  std::printf("Method     %s, outer %s with lr %s and momentum %s (cut: %s and %s), inner %s\n",
              r.outer.method.name.c_str(), r.outer.rule.c_str(), rate_text(r.outer.lr).c_str(),
              format_double(r.outer.momentum).c_str(), rate_text(r.outer.cut_lr).c_str(),
              rate_text(r.outer.cut_momentum).c_str(), r.inner.optimizer.name.c_str());
  std::printf("Work       %lld slots on %lld workers, %lld rounds of %lld steps of %lld samples: %s tokens\n",
              static_cast<long long>(r.slots), static_cast<long long>(r.workers),
              static_cast<long long>(r.rounds), static_cast<long long>(r.sync.steps),
              static_cast<long long>(r.batch), format_count(tokens).c_str());
}

std::string owners_text(const std::vector<std::int32_t>& owners, std::int32_t slots) {
  if (static_cast<std::int32_t>(owners.size()) == slots) return "all slots";
  if (owners.empty()) return "later";
  std::vector<std::string> names;
  for (const std::int32_t owner : owners) names.push_back(std::to_string(owner));
  return (owners.size() == 1 ? "slot " : "slots ") + join(names, ", ");
}

/// How the cut is dealt, where it is not slot s mod N for good.
std::string assignment_text(const PartialSettings& partial, std::int64_t cycle) {
  std::string text = partial.assign;
  if (partial.replicas > 1) text += ", " + std::to_string(partial.replicas) + " slices for each slot";
  if (cycle > 1) {
    text += partial.blocks() ? ", all slots go on to the next slice every "
                             : ", slots pass on to the next slice every ";
    text += std::to_string(partial.rotate_every) + " rounds (" + std::to_string(cycle) +
            " for all; below: the first)";
  }
  return text;
}

/// Slices with the same owners in one line: a model has them in every layer.
void print_partition(const Planned& p) {
  struct Share {
    std::int64_t parameters = 0;
    std::vector<std::string> slices;
  };
  std::map<std::vector<std::int32_t>, Share> shares;
  for (const Slice& slice : p.model.plan.slices) {
    Share& share = shares[slice.owners];
    share.parameters += elements_in(slice.rows, p.model.specs);
    share.slices.push_back(slice.name);
  }
  const std::string parts = p.recipe.partial.cut == "none"
                                ? ""
                                : ", " + std::to_string(p.recipe.partial.slices) + " slices of each group";
  std::printf("\nPartition  cut %s%s\n", p.recipe.partial.cut.c_str(), parts.c_str());
  if (p.recipe.partial.cut != "none") {
    std::printf("Assigned   %s\n", assignment_text(p.recipe.partial, p.model.schedule.cycle()).c_str());
  }
  if (const double frozen = frozen_elements(p.model.specs); frozen > 0)
    std::printf("  %-18s %9s  partial.frozen\n", "nobody", format_count(frozen).c_str());
  for (const auto& [owners, share] : shares) {
    const std::string more =
        share.slices.size() > 1 ? " and " + std::to_string(share.slices.size() - 1) + " more" : "";
    std::printf("  %-18s %9s  %s%s\n", owners_text(owners, p.model.plan.slots).c_str(),
                format_count(static_cast<double>(share.parameters)).c_str(), share.slices.front().c_str(),
                more.c_str());
  }
}

/// A family may not say what it keeps from forward to backward.
std::string peak_text(double bytes) {
  return bytes > 0 ? format_bytes(bytes) : "-";
}

void print_slots(const CostReport& cost) {
  std::printf("\n%-6s %10s %7s %11s %11s %11s %11s %11s %11s\n", "slot", "trains", "share", "FLOPs/step",
              "static", "activations", "peak", "up/merge", "down/merge");
  for (const SlotCost& slot : cost.slots) {
    std::printf("%-6d %10s %6.1f%% %11s %11s %11s %11s %11s %11s\n", slot.slot,
                format_count(slot.owned_parameters).c_str(), 100 * slot.trainable_share,
                format_count(slot.step.total()).c_str(), format_bytes(slot.memory.total()).c_str(),
                slot.activations > 0 ? format_bytes(slot.activations).c_str() : "-",
                peak_text(slot.peak).c_str(), format_bytes(slot.bytes_up).c_str(),
                format_bytes(slot.bytes_down).c_str());
  }
  std::printf(
      "Static: weights, gradients, moments, anchor (where a slot's training starts from), and what\n"
      "method and error feedback keep, fp32; frozen matrices in bf16 where the model computes in bf16.\n"
      "Activations are kept from forward to backward. Peak: the most that tensors of a step take at\n"
      "once: weights, moments, and activations, gradients and passing buffers as they come and go.\n"
      "The anchor is a part of the version that a worker received, %s: mapped from the\n"
      "coordinator's file and shared on one host, else its own. The coordinator needs %s.\n",
      format_bytes(cost.diloco.received).c_str(), format_bytes(cost.coordinator_bytes).c_str());
}

/// "7.8% less", "0.4% more"
std::string change(double saved) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%% %s", 100 * std::abs(saved), saved < 0 ? "more" : "less");
  return text;
}

void print_comparison(const Planned& p) {
  const CostReport& cost = p.cost;
  std::printf("\nAll slots, %lld steps  %14s %14s %14s\n", static_cast<long long>(p.settings.steps),
              "this recipe", "DiLoCo", "data parallel");
  auto row = [](const char* name, std::string (*format)(double), double ours, double diloco,
                double parallel) {
    std::printf("  %-20s %13s %14s %14s\n", name, format(ours).c_str(), format(diloco).c_str(),
                format(parallel).c_str());
  };
  row("FLOPs", format_count, cost.total.flops, cost.total_diloco.flops, cost.total_data_parallel.flops);
  row("static memory", format_bytes, cost.total.memory, cost.total_diloco.memory,
      cost.total_data_parallel.memory);
  row("peak, mean of slots", peak_text, cost.mean_peak, cost.diloco.peak, cost.data_parallel.peak);
  row("bytes up", format_bytes, cost.total.bytes_up, cost.total_diloco.bytes_up,
      cost.total_data_parallel.bytes_up);
  row("  of it in one merge", format_bytes, cost.total.merge_up, cost.total_diloco.merge_up,
      cost.total_data_parallel.merge_up);
  row("bytes down", format_bytes, cost.total.bytes_down, cost.total_diloco.bytes_down,
      cost.total_data_parallel.bytes_down);
  row("  of it in one merge", format_bytes, cost.total.merge_down, cost.total_diloco.merge_down,
      cost.total_data_parallel.merge_down);
  std::printf("Against DiLoCo: %s FLOPs, %s memory, %s bytes. Against data parallel: %s memory, %s bytes.\n",
              change(cost.flops_saved()).c_str(), change(cost.memory_saved()).c_str(),
              change(cost.bytes_saved()).c_str(), change(cost.memory_saved_against_data_parallel()).c_str(),
              change(cost.bytes_saved_against_data_parallel()).c_str());
}

void print_prediction(const Planned& p, const PlanOptions& options) {
  const RoundTime time = predict_round(p, options);
  std::printf(
      "\nPredicted at %s GFLOP/s per worker and %s: a round takes %s, of which compute %.1f%%; the run %s.\n",
      format_double(options.gflops).c_str(),
      options.mbits > 0 ? (format_double(options.mbits) + " Mbit/s each way").c_str() : "unlimited links",
      format_duration(time.total()).c_str(), 100 * time.utilisation,
      format_duration(time.total() * static_cast<double>(p.recipe.horizon()) /
                      static_cast<double>(p.settings.steps))
          .c_str());
}

}  // namespace

int command_plan(const PlanOptions& options) {
  const Result<Planned> planned = make_planned(options.recipe);
  if (!planned.ok()) return report(planned.error());
  if (options.json) {
    print_json(*planned, options);
    return 0;
  }
  print_head(*planned, options);
  print_partition(*planned);
  print_slots(planned->cost);
  print_comparison(*planned);
  if (options.gflops > 0) print_prediction(*planned, options);
  for (const std::string& note : planned->cost.notes) std::printf("Note: %s\n", note.c_str());
  return 0;
}

}  // namespace tessera
