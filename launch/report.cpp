#include "launch/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "base/text.h"
#include "coordinator/cost.h"
#include "launch/process.h"
#include "launch/progress.h"
#include "launch/trained_model.h"
#include "monitoring/svg_plot.h"

namespace tessera {
namespace {

void print_score(const char* name, const TextScore& score) {
  std::printf("  %-22s %9.4f %15.3f %20.1f\n", name, score.loss(), score.bits_per_byte(),
              score.perplexity_per_word());
}

void print_quality(const TextScore& trained, const TextScore& untrained, const TextScore& unigram) {
  std::printf("\nHeld-out text (measured on %s tokens, %s words)\n", format_count(trained.units).c_str(),
              format_count(trained.words).c_str());
  std::printf("  %-22s %9s %15s %20s\n", "", "loss", "bits per byte", "perplexity per word");
  print_score("this model", trained);
  print_score("unigram baseline", unigram);
  print_score("the model, untrained", untrained);
}

/// What the cut and the rare merges saved: computed by the cost formulas, the bytes also as the transport
/// counted them.
void print_savings(const Recipe& recipe, const CostReport& cost, const std::vector<RoundRow>& rows) {
  const double slots = static_cast<double>(recipe.slots), rounds = static_cast<double>(rows.size());
  double measured = 0, flops = 0, flops_uncut = 0;
  for (const RoundRow& row : rows) {
    measured += row.bytes_up + row.bytes_down;
    flops += row.flops;
    flops_uncut += row.flops / (1 - row.flops_saved);
  }
  std::printf("\nPer slot (cut %s, %lld slices)%27s %14s %14s\n", recipe.partial.cut.c_str(),
              static_cast<long long>(recipe.partial.slices), "this run", "DiLoCo", "data parallel");
  std::printf("  %-50s %12s %14s %14s\n", "FLOPs of a step, computed",
              format_count(cost.slots[0].step.total()).c_str(),
              format_count(cost.diloco.step.total()).c_str(),
              format_count(cost.data_parallel.step.total()).c_str());
  std::printf("  %-50s %12s %14s %14s\n", "FLOPs of this run's steps, over all slots",
              format_count(flops).c_str(), format_count(flops_uncut).c_str(),
              format_count(flops_uncut).c_str());
  std::printf("  %-50s %12s %14s %14s\n", "weights, gradients, moments, anchor, computed",
              format_bytes(cost.slots[0].memory.total()).c_str(),
              format_bytes(cost.diloco.memory.total()).c_str(),
              format_bytes(cost.data_parallel.memory.total()).c_str());
  std::printf("  %-50s %12s %14s %14s\n", "tensors of a step at their peak, computed",
              format_bytes(cost.slots[0].peak).c_str(), format_bytes(cost.diloco.peak).c_str(),
              format_bytes(cost.data_parallel.peak).c_str());
  std::printf("  %-50s %12s %14s %14s\n", "bytes up and down per round, computed",
              format_bytes(cost.slots[0].bytes()).c_str(), format_bytes(cost.diloco.bytes()).c_str(),
              format_bytes(cost.data_parallel.bytes()).c_str());
  if (rounds > 0) {
    std::printf("  %-50s %12s\n", "bytes up and down per round, measured",
                format_bytes(measured / slots / rounds).c_str());
  }
  std::printf(
      "  saved against DiLoCo (computed): %.1f %% of the FLOPs, %.1f %% of that memory, %.1f %% of the "
      "bytes\n",
      100 * cost.flops_saved(), 100 * cost.memory_saved(), 100 * cost.bytes_saved());
  std::printf(
      "  saved against data parallel (computed): %.1f %% of the FLOPs, %.1f %% of that memory, %.2f %% of "
      "the bytes\n",
      100 * cost.flops_saved(), 100 * cost.memory_saved_against_data_parallel(),
      100 * cost.bytes_saved_against_data_parallel());
}

/// How fast the slots were, in operations per second against the fastest: what partial.speeds wants.
void print_speeds(const ModelParts& model, const CostReport& cost, const std::vector<RoundRow>& rows) {
  const auto slots = static_cast<std::size_t>(model.plan.slots);
  std::vector<double> speeds(slots);
  for (std::size_t slot = 0; slot < slots; ++slot) {
    std::vector<double> steps;
    for (const RoundRow& row : rows) {
      if (slot < row.step_seconds.size() && row.step_seconds[slot] > 0)
        steps.push_back(row.step_seconds[slot]);
    }
    if (steps.empty()) return;
    std::nth_element(steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2),
                     steps.end());
    speeds[slot] = cost.slots[slot].step.total() / steps[steps.size() / 2];
  }
  const double fastest = *std::max_element(speeds.begin(), speeds.end());
  std::vector<std::string> words;
  for (const double speed : speeds) words.push_back(format_double(std::round(100 * speed / fastest) / 100));
  std::printf("\nMeasured speed of the slots, for partial.assign = \"balanced\"\n  partial.speeds = [%s]\n",
              join(words, ", ").c_str());
}

Status plot_loss(const RunDirectory& run, const Recipe& recipe, const std::vector<RoundRow>& rows,
                 const TextScore& unigram, const std::string& unit) {
  PlotSeries train{.name = "training", .x = {}, .y = {}}, held_out{.name = "held out", .x = {}, .y = {}};
  double units = 0;
  for (const RoundRow& row : rows) {
    units += row.units;
    train.x.push_back(units);
    train.y.push_back(row.loss);
    if (row.eval_loss) held_out.x.push_back(units), held_out.y.push_back(*row.eval_loss);
  }
  Plot plot{.title = "Loss of " + recipe.model.family.name,
            .subtitle = std::to_string(recipe.slots) + " slots, cut " + recipe.partial.cut + ", " +
                        std::to_string(recipe.partial.slices) + " slices, method " + recipe.outer.method.name,
            .x = {.label = unit},
            .y = {.label = "nats per " + unit.substr(0, unit.size() - 1)},
            .series = {train, held_out},
            .levels = {}};
  if (std::isfinite(unigram.loss())) plot.levels.push_back({.name = "unigram", .y = unigram.loss()});
  std::error_code ignored;
  std::filesystem::create_directories(run.plots(), ignored);
  return write_svg(plot, run.plots() + "/loss.svg");
}

}  // namespace

Status print_report(const RunDirectory& run, std::shared_ptr<const Recipe> recipe) {
  TESSERA_ASSIGN(const SavedParameters saved, load_parameters(run.path(), std::nullopt));
  TESSERA_ASSIGN(TrainedModel model, TrainedModel::make(recipe, {}));
  const std::vector<RoundRow> rows = read_rows(run.metrics());
  // On all held-out text, whatever part of it the rounds were measured on.
  const TextScore untrained = model.evaluate(0);
  TESSERA_TRY(model.set_parameters(saved.parameters));
  const TextScore trained = model.evaluate(0), unigram = model.evaluate_unigram(0);
  print_quality(trained, untrained, unigram);
  const ModelParts& parts = model.model();
  const CostReport cost =
      cost_of(parts.plan, parts.specs, parts.family->cost(), cost_settings(*recipe, parts));
  print_savings(*recipe, cost, rows);
  if (recipe->partial.cut != "none" && recipe->slots > 1) print_speeds(parts, cost, rows);
  TESSERA_TRY(plot_loss(run, *recipe, rows, unigram, model.data().source->unit()));
  if (const Result<std::string> text = model.generate(); text.ok()) {
    std::printf("\nA sample\n%s\n", text->c_str());
  } else {
    std::printf("\nNo sample: %s\n", text.error().message.c_str());
  }
  std::printf(
      "\nWhere it lies\n  plot of the loss    %s/loss.svg\n  metrics, by round   %s\n  checkpoints         "
      "%s\n  text logs           %s/text\n",
      run.plots().c_str(), run.metrics().c_str(), run.checkpoints().c_str(), run.path().c_str());
  std::printf("\nGo on with it\n  %s generate %s --prompt \"She was\"\n  %s inspect %s\n",
              program_for_typing().c_str(), run.path().c_str(), program_for_typing().c_str(),
              run.path().c_str());
  return {};
}

}  // namespace tessera
