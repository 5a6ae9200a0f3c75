// tessera eval and tessera generate: use what a run has trained.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "launch/catalogs.h"
#include "launch/commands.h"
#include "launch/config/parse.h"
#include "launch/run_directory.h"
#include "launch/stored.h"
#include "launch/trained_model.h"

namespace tessera {
namespace {

struct Opened {
  TrainedModel model;
  Version version;
  std::shared_ptr<const Recipe> recipe;
};

/// A damaged checkpoint need not be the end: the older ones, if nobody asked for this one.
Error with_way_out(Error error, const TrainedOptions& options) {
  const Result<std::vector<std::int64_t>> rounds = stored_rounds(options.run);
  if (options.round || error.code != ExitCode::storage || !rounds.ok() || rounds->size() < 2) return error;
  error.message += "; the checkpoint before: --round " + std::to_string((*rounds)[rounds->size() - 2]);
  return error;
}

Result<Opened> open(const TrainedOptions& options) {
  const RunDirectory run(options.run);
  if (!run.exists())
    return fail(ExitCode::usage, options.run, " is no run directory (there is no ", run.recipe(), ")");
  TESSERA_ASSIGN(Recipe parsed, load_recipe(run.recipe(), options.overrides, builtin_catalogs()));
  auto recipe = std::make_shared<const Recipe>(std::move(parsed));
  const Result<SavedParameters> saved = load_parameters(options.run, options.round);
  if (!saved.ok()) return with_way_out(saved.error(), options);
  TESSERA_ASSIGN(TrainedModel model, TrainedModel::make(recipe, options.data));
  const Status fits = model.set_parameters(saved->parameters);
  if (!fits.ok()) return with_way_out(fits.error(), options);
  return Opened{std::move(model), saved->version, recipe};
}

nlohmann::json json_of(const TextScore& score) {
  return {{"loss", score.loss()},
          {"perplexity", score.perplexity()},
          {"perplexity_per_word", score.perplexity_per_word()},
          {"bits_per_byte", score.bits_per_byte()},
          {"units", score.units}};
}

void print(const char* name, const TextScore& score) {
  std::printf("%-10s %10.4f %12.2f %18.1f %14.3f\n", name, score.loss(), score.perplexity(),
              score.perplexity_per_word(), score.bits_per_byte());
}

}  // namespace

int command_eval(const TrainedOptions& options) {
  Result<Opened> opened = open(options);
  if (!opened.ok()) return report(opened.error());
  const std::int64_t batches = opened->recipe->eval.batches;
  const TextScore score = opened->model.evaluate(batches), unigram = opened->model.evaluate_unigram(batches);
  if (options.json) {
    const nlohmann::json json = {
        {"round", opened->version.value}, {"model", json_of(score)}, {"unigram", json_of(unigram)}};
    std::printf("%s\n", json.dump(2).c_str());
    return 0;
  }
  std::printf("round %lld of %s, on %s held-out %s\n", static_cast<long long>(opened->version.value),
              options.run.c_str(), format_count(score.units).c_str(),
              opened->model.data().source->unit().c_str());
  std::printf("%-10s %10s %12s %18s %14s\n", "", "loss", "perplexity", "perplexity/word", "bits per byte");
  print("model", score);
  print("unigram", unigram);
  return 0;
}

int command_generate(const TrainedOptions& options) {
  Result<Opened> opened = open(options);
  if (!opened.ok()) return report(opened.error());
  const Result<std::string> text = opened->model.generate([](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  });
  if (!text.ok()) return report(text.error());
  std::printf("\n");
  return 0;
}

}  // namespace tessera
