// What a model's step costs, from its shapes alone: operations, and the lives of its tensors. A family
// declares its figures once (Family::cost, ParamSpec::products), an objective its own; `plan`, the metrics of
// a run and the tests that count what is really executed all compute from them. Nothing is allocated here.
//
// Operations (reference/partial-updates-and-diloco.md, section 4.2): a multiplication with its addition
// counts as 2. Causal attention counts by what the mathematics needs, half of all pairs of positions: 2 T A
// forward and 4 T A backward per token, for T positions and A the width of the queries summed over the
// layers; that a kernel computes the scores a second time in its backward is its own affair and not counted.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/params.h"

namespace tessera {

/// A stretch of the forward pass, which the backward pass goes through in the other direction. Bytes, as the
/// tensor allocator counts them.
struct MemoryStage {
  std::string name;
  double kept = 0;       ///< made by its forward and alive until its backward is done
  double held = 0;       ///< the same, but in reserved memory
  double reserved = 0;   ///< memory that layers keep over the steps to use it again, for all stages
  double forward = 0;    ///< the most that is alive besides while its forward runs
  double backward = 0;   ///< the most that is alive besides while its backward runs
  double gradients = 0;  ///< of its parameters: they stay until the next step
};

/// What the formulas need to know of a model besides its ParamSpecs.
struct CostModel {
  double attention_width = 0;  ///< A: sum over layers of the width of the queries; not causal: twice
  std::int64_t context = 0;    ///< T: tokens per sequence
  double outputs = 0;          ///< numbers per token that the objective gets (logits: the vocabulary)
  double frozen_bytes = 4;     ///< of an element of a matrix (is_matrix) that the active slot does not own
  /// Stages of a step over so many sequences of `context` tokens by a slot that owns these rows, in the order
  /// of the forward pass, without the objective's. Empty: the family does not say.
  std::function<std::vector<MemoryStage>(const RowSet& owned, double sequences)> stages;
};

/// Operations of one inner step of one slot.
struct StepFlops {
  double forward = 0, activation_backward = 0, weight_gradient = 0;
  double total() const { return forward + activation_backward + weight_gradient; }
};

/// A step over so many tokens by a slot that owns these rows. Forward and gradient of the activations are
/// never cut; weight gradients exist for owned rows. The gradient of the activations counts down to the
/// embedding also where nothing below some layer is owned: that autograd then stops early saves a little
/// more.
StepFlops step_flops(const std::vector<ParamSpec>& specs, const RowSet& owned, const CostModel& model,
                     double tokens);
/// The same for a slot that owns everything.
StepFlops step_flops_uncut(const std::vector<ParamSpec>& specs, const CostModel& model, double tokens);

/// What a walk through the stages and back finds, in bytes.
struct StepMemory {
  double activations = 0;  ///< kept or held from forward to backward, all stages together
  double gradients = 0;
  double peak =
      0;  ///< the most of activations, gradients, passing and reserved buffers that is there at once
};
StepMemory step_memory(const std::vector<MemoryStage>& stages);

/// True for the matrices of products, by their shape; not for tables (named embed*), whose rows are looked
/// up.
bool is_matrix(const ParamSpec& spec);
/// True for the matrices of products between two layers: not for the output head and adapters' factors.
bool is_hidden_matrix(const ParamSpec& spec);
/// P_m: multiply-adds of the forward pass per token in products with parameters.
double matmul_params(const std::vector<ParamSpec>& specs);
/// Elements of a parameter that a set of rows holds.
double owned_elements(const RowSet& owned, const ParamSpec& spec);

}  // namespace tessera
