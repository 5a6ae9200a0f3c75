#include "launch/report.h"

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
void print_savings(const Recipe& recipe, const ModelParts& model, const std::vector<RoundRow>& rows) {
  const CostReport cost =
      cost_of(model.plan, model.specs, model.family->cost(), cost_settings(recipe, model));
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
  print_savings(*recipe, model.model(), rows);
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
