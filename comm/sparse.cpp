#include "comm/sparse.h"

#include "comm/storage/safetensors.h"

namespace tessera {
namespace {

constexpr const char* version_name = "version";

}  // namespace

HostTensor picked(const HostTensor& from, const std::vector<std::int64_t>& coordinates) {
  HostTensor values = HostTensor::empty(DType::f32, {static_cast<std::int64_t>(coordinates.size())});
  const std::span<const float> all = from.as<float>();
  const std::span<float> out = values.as<float>();
  for (std::size_t i = 0; i < coordinates.size(); ++i) out[i] = all[static_cast<std::size_t>(coordinates[i])];
  return values;
}

Status put_back(const std::string& name, const HostTensor& picked,
                const std::vector<std::int64_t>& coordinates, std::span<float> values) {
  const auto count = static_cast<std::int64_t>(coordinates.size());
  if (picked.dtype != DType::f32 || picked.shape != std::vector<std::int64_t>{count})
    return fail(ExitCode::failed, name, " does not have the ", count, " values of this merge");
  for (std::size_t i = 0; i < coordinates.size(); ++i)
    values[static_cast<std::size_t>(coordinates[i])] = picked.as<float>()[i];
  return {};
}

TensorMap sparse_update(const TensorMap& parameters, std::int64_t version, const Coordinates& coordinates) {
  TensorMap update;
  bool is_short = false;
  for (const auto& [name, tensor] : parameters) {
    const auto these = coordinates(name, version);
    is_short |= these.has_value();
    update.emplace(name, these ? picked(tensor, *these) : tensor);
  }
  if (!is_short) return {};
  update.emplace(version_name, HostTensor::of<std::int64_t>(DType::i64, {1}, {version}));
  return update;
}

Result<Buffer> apply_sparse_update(const Buffer& base, const Buffer& update, const Coordinates& coordinates) {
  TESSERA_ASSIGN(SafetensorsFile file, decode_safetensors(base, "the version before"));
  TESSERA_ASSIGN(SafetensorsFile changes, decode_safetensors(update, "an update"));
  const auto version = changes.tensors.extract(version_name);
  if (version.empty() || version.mapped().dtype != DType::i64 || version.mapped().elements() != 1)
    return fail(ExitCode::failed, "an update that does not say of which version");
  for (const auto& [name, tensor] : changes.tensors) {
    const auto whole = file.tensors.find(name);
    if (whole == file.tensors.end() || whole->second.dtype != DType::f32)
      return fail(ExitCode::failed, "an update of ", name, ", which the version before does not have");
    const auto these = coordinates(name, version.mapped().as<std::int64_t>()[0]);
    if (!these && tensor.shape != whole->second.shape)
      return fail(ExitCode::failed, "an update of ", name, " of another shape");
    if (!these) {
      whole->second = tensor;
      continue;
    }
    whole->second = whole->second.clone();
    TESSERA_TRY(put_back(name, tensor, *these, whole->second.as<float>()));
  }
  return encode_safetensors(file.tensors);
}

}  // namespace tessera
