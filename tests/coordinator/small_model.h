// A model of a few tensors whose MLP can be cut, with plans, tensors and contributions for it.
#pragma once
#include <string>
#include <vector>

#include "base/pieces.h"
#include "base/random.h"
#include "coordinator/merge.h"
#include "coordinator/planner.h"

namespace tessera {

inline HostTensor tensor(std::vector<std::int64_t> shape, const std::vector<float>& values) {
  return HostTensor::of(DType::f32, std::move(shape), values);
}
inline std::vector<float> floats(const HostTensor& t) {
  return {t.as<float>().begin(), t.as<float>().end()};
}

inline TensorMap clone_of(const TensorMap& tensors) {
  TensorMap copy;
  for (const auto& [name, t] : tensors) copy.emplace(name, t.clone());
  return copy;
}

/// Of a method on these parameters, with one outer step for all of them.
inline OuterMethod::Context context_of(std::vector<ParamSpec> specs, std::string rule, double lr,
                                       double momentum) {
  OuterMethod::Context context;
  context.specs = std::move(specs);
  context.rule = std::move(rule);
  context.lr = lr;
  context.momentum = momentum;
  return context;
}

/// A small model whose MLP can be cut, and random tensors for it.
inline const std::vector<ParamSpec>& small_specs() {
  static const std::vector<ParamSpec> specs{
      {"emb", {5, 3}}, {"mlp.up", {8, 3}}, {"mlp.bias", {8}}, {"norm", {3}}};
  return specs;
}
inline PlanSchedule small_schedule(std::int64_t slices, std::int32_t slots, std::int64_t rotate_every = 0) {
  PartialSettings settings;
  settings.cut = "mlp";
  settings.slices = slices;
  settings.rotate_every = rotate_every;
  const std::vector<CutGroup> cuts{{"mlp", "mlp", "units", 8, {{"mlp.up"}, {"mlp.bias"}}}};
  return *PlanSchedule::make(small_specs(), cuts, settings, slots);
}
inline Plan small_plan(std::int64_t slices, std::int32_t slots) {
  return small_schedule(slices, slots).at({0});
}
inline TensorMap random_tensors(const std::vector<ParamSpec>& specs, std::uint64_t seed,
                                double scale = 0.02) {
  KeyedRandom random(seed);
  TensorMap tensors;
  for (const ParamSpec& spec : specs) {
    std::vector<float> values(spec.elements());
    for (float& value : values) value = static_cast<float>(scale * random.normal());
    tensors.emplace(spec.name, tensor(spec.shape, values));
  }
  return tensors;
}
inline std::vector<MergeInput> random_inputs(const Plan& plan, std::uint64_t seed) {
  std::vector<MergeInput> inputs;
  for (std::int32_t slot = 0; slot < plan.slots; ++slot) {
    const TensorMap end = random_tensors(small_specs(), key_of({seed, static_cast<std::uint64_t>(slot)}));
    inputs.push_back({SlotId{slot}, pieces_of(end, plan.owned_by(slot), small_specs())});
  }
  return inputs;
}

}  // namespace tessera
