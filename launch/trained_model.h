// A model at rest, from a run directory: for eval, generate and the report at the end of a run.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/tokenizer.h"
#include "eval/text_score.h"
#include "launch/assemble.h"
#include "launch/config/recipe.h"

namespace tessera {

/// Parameters of a run's checkpoint: of a round, or of the newest complete one.
struct SavedParameters {
  Version version;
  TensorMap parameters;
};
Result<SavedParameters> load_parameters(const std::string& run_directory, std::optional<std::int64_t> round);

class TrainedModel {
 public:
  /// Model and data of a recipe, with the parameters before training.
  static Result<TrainedModel> make(std::shared_ptr<const Recipe> recipe, const std::string& data_folder);
  /// Replaces the parameters. Error: tensors of another model.
  Status set_parameters(const TensorMap& parameters);

  /// Score on held-out data; `batches` of 16 samples, 0: all of it.
  TextScore evaluate(std::int64_t batches) const;
  /// What a unigram model of the training tokens scores on the same text.
  TextScore evaluate_unigram(std::int64_t batches) const;
  /// Continues recipe.generate.prompt; `say` gets each piece of text as it comes.
  Result<std::string> generate(const std::function<void(std::string_view)>& say = {}) const;

  const DataParts& data() const { return data_; }
  const ModelParts& model() const { return model_; }

 private:
  std::shared_ptr<const Recipe> recipe_;
  DataParts data_;
  ModelParts model_;
  std::shared_ptr<ParamStore> params_;
  std::unique_ptr<Objective> objective_;
};

}  // namespace tessera
