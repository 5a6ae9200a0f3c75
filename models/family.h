// A model family: from a batch of named tensors to named outputs. What the outputs are worth is the
// objective's business. One file per family in models/families/, registered under its stem.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/cost_model.h"
#include "base/params.h"
#include "base/registry.h"
#include "models/parameter.h"

namespace tessera {

using NamedTensors = std::map<std::string, at::Tensor>;

class Family {
 public:
  /// What a family must know besides its own settings.
  struct Context {
    std::int64_t vocab = 256;   ///< of the data's tokenizer; a family without tokens ignores it
    bool predicts_next = true;  ///< targets are the tokens that follow, as in all data sources so far
  };
  static constexpr const char* kind = "model family";

  virtual ~Family() = default;
  /// Why the family cannot be trained on such data, in sentences that name the setting. Construction itself
  /// must not fail on it.
  virtual std::vector<std::string> problems() const { return {}; }
  virtual std::vector<ParamSpec> specs() const = 0;
  /// Which dimensions of which parameters can be cut together.
  virtual std::vector<CutGroup> cuts() const = 0;
  virtual CostModel cost() const = 0;
  /// How a worker holds the rows of matrices that the active slot does not own; bf16: forward() copes with
  /// split parameters.
  virtual FrozenRows frozen_rows() const { return FrozenRows::fp32; }
  /// Whether training needs a scaled loss (optim/loss_scale.h), since gradients pass through fp16.
  virtual bool scales_loss() const { return false; }
  /// Writes initial values; a function of the seed and each parameter's name alone, so that any subset can be
  /// remade.
  virtual void initialize(ParamStore& params, std::uint64_t seed) const = 0;
  /// Batch (batch_names.h) -> outputs. Text: "tokens" [B, T] (int64) -> "logits" [B, T, vocab].
  virtual NamedTensors forward(const ParamStore& params, const NamedTensors& batch) const = 0;
  /// A small batch (with targets) for contract tests.
  virtual NamedTensors example_batch(std::uint64_t seed) const = 0;
};

}  // namespace tessera
