#include "worker/slot_run.h"

#include <algorithm>

#include "worker/torch_bridge.h"

namespace tessera {
namespace {

constexpr std::string_view inner_prefix = "inner/";
constexpr const char* step_name = "slot/step";
constexpr const char* adopted_name = "slot/adopted";
constexpr const char* pushed_name = "slot/pushed";

HostTensor versions_tensor(const std::vector<Version>& versions) {
  HostTensor tensor = HostTensor::empty(DType::i64, {static_cast<std::int64_t>(versions.size())});
  std::transform(versions.begin(), versions.end(), tensor.as<std::int64_t>().begin(),
                 [](Version v) { return v.value; });
  return tensor;
}

/// The named integers of a saved state. Error: there are none.
Result<std::vector<std::int64_t>> integers(const TensorMap& state, const std::string& name, SlotId slot) {
  auto found = state.find(name);
  if (found == state.end() || found->second.dtype != DType::i64 || found->second.shape.size() != 1) {
    return fail(ExitCode::storage, "the saved state of slot ", slot, " has no integers '", name, "'");
  }
  const auto values = found->second.as<std::int64_t>();
  return std::vector<std::int64_t>(values.begin(), values.end());
}

std::vector<Version> as_versions(const std::vector<std::int64_t>& values) {
  std::vector<Version> versions;
  for (std::int64_t value : values) versions.push_back({value});
  return versions;
}

}  // namespace

TensorMap SlotRun::state(const SlotProgress& progress) const {
  TensorMap state;
  for (const auto& [name, tensor] : inner->state())
    state.emplace(std::string(inner_prefix) + name, host_copy(tensor));
  state.emplace(step_name, HostTensor::of<std::int64_t>(DType::i64, {1}, {progress.step}));
  state.emplace(adopted_name, versions_tensor(progress.adopted));
  state.emplace(pushed_name, versions_tensor(progress.pushed));
  return state;
}

Result<SlotProgress> SlotRun::load(const TensorMap& state) {
  TESSERA_ASSIGN(auto saved_step, integers(state, step_name, slot));
  TESSERA_ASSIGN(auto adopted_versions, integers(state, adopted_name, slot));
  TESSERA_ASSIGN(auto pushed_versions, integers(state, pushed_name, slot));
  if (saved_step.size() != 1)
    return fail(ExitCode::storage, "the saved state of slot ", slot, " has a malformed step counter");
  std::map<std::string, at::Tensor> moments;
  for (const auto& [name, tensor] : state) {
    if (name.starts_with(inner_prefix)) {
      moments.emplace(name.substr(inner_prefix.size()), torch_view(tensor));
    } else if (!name.starts_with("slot/")) {
      return fail(ExitCode::storage, "the saved state of slot ", slot, " has an unknown tensor '", name, "'");
    }
  }
  inner->load(moments);
  step = saved_step[0];
  return SlotProgress{
      .step = step, .adopted = as_versions(adopted_versions), .pushed = as_versions(pushed_versions)};
}

}  // namespace tessera
