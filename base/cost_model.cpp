#include "base/cost_model.h"

#include <algorithm>

namespace tessera {
namespace {

StepFlops flops_of(double products, double owned_products, const CostModel& model, double tokens) {
  const double attention = static_cast<double>(model.context) * model.attention_width;
  return {.forward = tokens * (2 * products + 2 * attention),
          .activation_backward = tokens * (2 * products + 4 * attention),
          .weight_gradient = tokens * 2 * owned_products};
}

}  // namespace

double owned_elements(const RowSet& owned, const ParamSpec& spec) {
  const auto found = owned.find(spec.name);
  if (found == owned.end()) return 0;
  double elements = 0;
  for (const Rows& rows : found->second) elements += static_cast<double>(rows.count() * spec.row_size());
  return elements;
}

bool is_matrix(const ParamSpec& spec) {
  return spec.shape.size() == 2 && !spec.name.starts_with("embed");
}

bool is_hidden_matrix(const ParamSpec& spec) {
  return is_matrix(spec) && spec.group == "default";
}

double matmul_params(const std::vector<ParamSpec>& specs) {
  double products = 0;
  for (const ParamSpec& spec : specs) products += spec.products * static_cast<double>(spec.elements());
  return products;
}

StepFlops step_flops(const std::vector<ParamSpec>& specs, const RowSet& owned, const CostModel& model,
                     double tokens) {
  double owned_products = 0;
  for (const ParamSpec& spec : specs) {
    if (spec.products > 0) owned_products += spec.products * owned_elements(owned, spec);
  }
  return flops_of(matmul_params(specs), owned_products, model, tokens);
}

StepFlops step_flops_uncut(const std::vector<ParamSpec>& specs, const CostModel& model, double tokens) {
  double trained = 0;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) trained += spec.products * static_cast<double>(spec.elements());
  }
  return flops_of(matmul_params(specs), trained, model, tokens);
}

StepMemory step_memory(const std::vector<MemoryStage>& stages) {
  StepMemory memory;
  double alive = 0;
  for (const MemoryStage& stage : stages) alive += stage.reserved;
  for (const MemoryStage& stage : stages) {
    memory.peak = std::max(memory.peak, alive + stage.kept + stage.forward);
    alive += stage.kept;
    memory.activations += stage.kept + stage.held;
  }
  for (auto stage = stages.rbegin(); stage != stages.rend(); ++stage) {
    memory.gradients += stage->gradients;
    memory.peak = std::max(memory.peak, alive + memory.gradients + stage->backward);
    alive -= stage->kept;
  }
  return memory;
}

}  // namespace tessera
