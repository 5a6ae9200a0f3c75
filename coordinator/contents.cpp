// What the coordinator's blobs consist of: contributions as they come, states as they are saved, versions and
// updates as they are published.
#include <algorithm>

#include "base/pieces.h"
#include "comm/sparse.h"
#include "comm/storage/safetensors.h"
#include "coordinator/coordinator.h"

namespace tessera {
namespace {

const std::string feedback_prefix = "feedback/";  // in the outer state

}  // namespace

Status Coordinator::validate(const MergeKey& key, TensorMap tensors, bool is_finite) const {
  if (parts_.hand_over.is_on()) {
    const TensorMap moments = take_moments(tensors);
    std::map<std::string, RowSet> rows;
    for (const std::string& moment : parts_.hand_over.moments)
      rows[moment] =
          common_rows(fragments_[key.fragment.value], parts_.hand_over.rows(moment, key.slot, key.version));
    TESSERA_TRY(validate_moments(moments, rows, parts_.specs));
  }
  return merger_.validate(key.fragment, state_.settings.owned(key.slot, key.version), tensors, is_finite);
}

TensorMap Coordinator::initial_outer_state() const {
  TensorMap state = merger_.initial_state(theta_);
  state.merge(initial_moments(parts_.hand_over, parts_.specs));
  for (const ParamSpec& spec : parts_.specs) {
    if (parts_.down.keeps_residual() && spec.role == Role::weight)
      state.emplace(feedback_prefix + spec.name, HostTensor::zeros(DType::f32, spec.shape));
  }
  return state;
}

Result<TensorMap> Coordinator::contribution_of(const MergeKey& key, const Buffer& bytes,
                                               const std::string& where) const {
  TESSERA_ASSIGN(SafetensorsFile file, decode_safetensors(bytes, where));
  const RowSet expected = merger_.expected(key.fragment, state_.settings.owned(key.slot, key.version));
  if (parts_.up.rounds()) TESSERA_TRY(decode_pieces(parts_.up, expected, parts_.specs, file.tensors));
  if (parts_.method->share() < 1) TESSERA_TRY(fill_in(key, expected, file.tensors));
  return std::move(file.tensors);
}

/// What a sparse contribution does not bring has not changed.
Status Coordinator::fill_in(const MergeKey& key, const RowSet& expected, TensorMap& tensors) const {
  for (const ParamSpec& spec : parts_.specs) {
    const auto ranges = expected.find(spec.name);
    if (ranges == expected.end()) continue;
    for (const Rows& rows : ranges->second) {
      const auto these = parts_.method->coordinates(key.version.value + 1, spec, rows);
      const auto found = tensors.find(piece_name(spec.name, rows, spec.rows()));
      if (!these || found == tensors.end()) continue;  // missed by whoever validates
      HostTensor piece = theta_.at(spec.name).rows(rows).clone();
      TESSERA_TRY(put_back(found->first, found->second, *these, piece.as<float>()));
      found->second = std::move(piece);
    }
  }
  return {};
}

TensorMap Coordinator::sparse_update_to(FragmentId fragment, Version version) const {
  return sparse_update(
      fragment_parameters(fragment), version.value, [this](const std::string& piece, std::int64_t made) {
        const auto spec = std::find_if(
            parts_.specs.begin(), parts_.specs.end(),
            [&](const ParamSpec& candidate) { return candidate.name == piece.substr(0, piece.find('[')); });
        return parts_.method->coordinates(made, *spec, rows_of_piece(piece, spec->rows()).rows);
      });
}

TensorMap Coordinator::fragment_parameters(FragmentId fragment) const {
  TensorMap tensors;
  add_pieces(tensors, theta_, fragments_[fragment.value]);
  return tensors;
}

RowSet Coordinator::weights_of(FragmentId fragment) const {
  RowSet rows = fragments_[fragment.value];
  for (const ParamSpec& spec : parts_.specs) {
    if (spec.role != Role::weight) rows.erase(spec.name);
  }
  return rows;
}

TensorMap Coordinator::round_update(FragmentId fragment, const TensorMap& base, const RowSet& unmoved) {
  // What nobody brought does not move: a codec may have no code for nothing.
  const RowSet weights = weights_of(fragment), rows = rows_without(weights, unmoved);
  TensorMap residuals;
  for (const auto& [name, ranges] : rows) {
    if (parts_.down.keeps_residual()) residuals.emplace(name, outer_.at(feedback_prefix + name));
  }
  TensorMap update = encode_update(parts_.down, rows, base, theta_, residuals);
  add_pieces(update, theta_, rows_without(fragments_[fragment.value], weights));  // buffers
  return update;
}

TensorMap Coordinator::fragment_state(FragmentId fragment) const {
  TensorMap tensors = fragment_parameters(fragment);
  const RowSet& rows = fragments_[fragment.value];
  for (const auto& [name, tensor] : outer_) {
    const std::size_t slash = name.find('/') + 1;
    const auto param = rows.find(name.substr(slash));
    if (param != rows.end()) add_pieces(tensors, {{name, tensor}}, {*param}, name.substr(0, slash));
  }
  return tensors;
}

TensorMap Coordinator::handed_over(FragmentId fragment, Version version) const {
  TensorMap moments;
  if (!parts_.hand_over.is_on()) return moments;
  for (const auto& [name, tensor] : fragment_state(fragment)) {
    const bool due = std::ranges::any_of(parts_.hand_over.moments, [&](const std::string& moment) {
      return name.starts_with(moment_name(moment, "")) && parts_.hand_over.is_due(moment, version);
    });
    if (due) moments.emplace(name, tensor);
  }
  return moments;
}

TensorMap Coordinator::published(FragmentId fragment, Version version) const {
  TensorMap tensors = fragment_parameters(fragment);
  tensors.merge(handed_over(fragment, version));
  return tensors;
}

Blob Coordinator::parameters_blob(const TensorMap& published, TensorDigests* digests) const {
  return safetensors_blob(
      published, [this](std::size_t size) { return endpoint_.allocate(size); }, digests);
}

FragmentHead Coordinator::offer_head(FragmentId fragment, Version version, const Digest& chain,
                                     const Blob& parameters, TensorMap update) {
  const BlobRef ref = endpoint_.offer(parameters);
  std::vector<Digest>& offered = offered_[{fragment, version}] = {ref.digest};
  FragmentHead head{fragment, version, ref, chain, std::nullopt};
  if (const TensorMap fast = merger_.fast_values(fragment, outer_); !fast.empty()) {
    head.fast = endpoint_.offer(safetensors_blob(fast));
    offered.push_back(head.fast->digest);
  }
  if (!update.empty()) {
    update.merge(handed_over(fragment, version));
    const Digest base = state_.fragments[fragment.value].head.parameters.digest;
    head.update = {endpoint_.offer(safetensors_blob(update)), base};
    offered.push_back(head.update->blob.digest);
  }
  return head;
}

}  // namespace tessera
