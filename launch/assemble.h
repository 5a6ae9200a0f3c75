// From a resolved recipe to the parts of a run: model, data, plan, method, optimizers. Used by every role, so
// that all of them mean the same by the same recipe.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/params.h"
#include "base/tensor.h"
#include "comm/changes.h"
#include "coordinator/cost.h"
#include "coordinator/hand_over.h"
#include "coordinator/merge.h"
#include "data/prepare.h"
#include "data/source.h"
#include "launch/config/recipe.h"
#include "models/family.h"
#include "optim/grad_clip.h"
#include "optim/inner.h"
#include "optim/objective.h"
#include "optim/outer.h"
#include "optim/schedule.h"

namespace tessera {

/// A recipe's model and who trains what of it. Needs no data beyond the size of its vocabulary.
struct ModelParts {
  std::unique_ptr<Family> family;
  std::vector<ParamSpec> specs;
  PlanSchedule schedule;
  Plan plan;  ///< of the first rounds
};
/// `vocab` is the tokenizer's, or the recipe's model.vocab where there is no data at hand.
Result<ModelParts> assemble_model(const Recipe& recipe, std::int64_t vocab);

/// Parameters that are trained: P of scaled clipping.
std::int64_t trained_elements(const std::vector<ParamSpec>& specs);

/// Parameters before training, by name; a function of the recipe's seed.
TensorMap initial_parameters(const Family& family, std::uint64_t seed);

/// Prepared data, opened. `folder` overrides data.path where a worker keeps its own copy.
struct DataParts {
  Prepared prepared;
  std::unique_ptr<DataSource> source;
};
Result<DataParts> assemble_data(const Recipe& recipe, const std::string& folder = {},
                                const PrepareProgress& progress = {});

std::unique_ptr<Objective> assemble_objective(const Recipe& recipe);
std::unique_ptr<Schedule> assemble_schedule(const Recipe& recipe);
std::unique_ptr<InnerOptimizer> assemble_inner(const Recipe& recipe);
/// The low-communication method, with the coordinator's gradient step where the method wants one. It refers
/// to the recipe, which must outlive it.
std::shared_ptr<const OuterMethod> assemble_method(const Recipe& recipe, const ModelParts& model);
/// An inner optimizer on merged gradients; its state_names() are those of the slots' inner optimizers.
std::unique_ptr<GradientStep> assemble_gradient_step(const Recipe& recipe,
                                                     const std::vector<ParamSpec>& specs);
/// Which moments travel: with slices that change owners (where the coordinator steps, it keeps them anyway),
/// or because the method averages them.
HandOver assemble_hand_over(const Recipe& recipe, const ModelParts& model, const OuterMethod& method);
ClipSettings clip_settings(const Recipe& recipe);
/// The codecs of contributions (the recipe's, or the method's own) and of what is published, with their
/// shares of error feedback.
Wire assemble_up(const Recipe& recipe, const OuterMethod& method);
Wire assemble_down(const Recipe& recipe);
MergeSettings merge_settings(const Recipe& recipe, const OuterMethod& method, const Plan& plan);
/// Whether every version's fast values have to be fetched, since slices have several owners, or change them.
bool fast_for_all(const Recipe& recipe, const Plan& plan);
/// What the cost formulas need to know of a recipe: for plan, the banner of a run and its report.
CostSettings cost_settings(const Recipe& recipe, const ModelParts& model);

/// What must be equal for two parties to work on one job: a digest of the binary's build.
std::string build_id();

}  // namespace tessera
