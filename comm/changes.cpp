#include "comm/changes.h"

#include <algorithm>

#include "base/pieces.h"
#include "comm/storage/safetensors.h"

namespace tessera {
namespace {

/// Elements of rows of a parameter, which are in one piece.
std::span<float> floats_of(const TensorMap& pieces, const std::string& param, Rows rows) {
  const std::optional<HostTensor> found = find_rows(pieces, param, rows);
  TESSERA_CHECK(found.has_value(), ": no rows [", rows.begin, ", ", rows.end, ") of ", param);
  return found->as<float>();
}

std::int64_t rows_in(const HostTensor& tensor) {
  return tensor.shape.empty() ? 1 : tensor.shape[0];
}

}  // namespace

HostTensor encode_change(const Wire& wire, std::span<float> change, std::span<float> residual) {
  TESSERA_CHECK(wire.rounds(), ": values are not encoded as changes");
  TESSERA_CHECK_EQ(residual.size(), wire.keeps_residual() ? change.size() : 0);
  const auto share = static_cast<float>(wire.feedback);
  for (std::size_t i = 0; i < residual.size(); ++i) change[i] += share * residual[i];
  std::copy_n(change.begin(), residual.size(), residual.begin());
  const auto bytes = static_cast<std::int64_t>(wire.codec->encoded_bytes(change.size()));
  HostTensor encoded = HostTensor::empty(DType::u8, {bytes});
  wire.codec->encode(change, encoded.buffer.bytes);
  const Status decoded = wire.codec->decode(encoded.bytes(), change);
  TESSERA_CHECK(decoded.ok(), ": a codec refuses its own bytes: ", decoded.error().message);
  for (std::size_t i = 0; i < residual.size(); ++i) residual[i] -= change[i];
  return encoded;
}

Status decode_change(const Codec& codec, const std::string& name, const HostTensor& encoded,
                     std::span<float> change) {
  if (encoded.dtype != DType::u8 || encoded.shape.size() != 1)
    return fail(ExitCode::failed, name, " is not a row of encoded bytes");
  if (const Status decoded = codec.decode(encoded.bytes(), change); !decoded.ok())
    return fail(decoded.error().code, name, ": ", decoded.error().message);
  return {};
}

TensorMap encode_pieces(const Wire& wire, const TensorMap& pieces, const TensorMap* start,
                        TensorMap& residuals) {
  TensorMap encoded;
  for (const auto& [name, piece] : pieces) {
    HostTensor change = piece.clone();
    if (start != nullptr) {
      const PieceRows rows = rows_of_piece(name, rows_in(piece));
      const std::span<const float> from = floats_of(*start, rows.param, rows.rows);
      const std::span<float> to = change.as<float>();
      TESSERA_CHECK_EQ(from.size(), to.size());
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = from[i] - to[i];
    }
    std::span<float> residual;
    if (wire.keeps_residual()) {
      auto kept = residuals.find(name);
      if (kept == residuals.end())
        kept = residuals.emplace(name, HostTensor::zeros(DType::f32, piece.shape)).first;
      residual = kept->second.as<float>();
    }
    encoded.emplace(name, encode_change(wire, change.as<float>(), residual));
  }
  return encoded;
}

Status decode_pieces(const Wire& wire, const RowSet& expected, const std::vector<ParamSpec>& specs,
                     TensorMap& tensors) {
  for (const ParamSpec& spec : specs) {
    const auto ranges = expected.find(spec.name);
    if (ranges == expected.end() || spec.role != Role::weight) continue;
    for (const Rows& rows : ranges->second) {
      const auto found = tensors.find(piece_name(spec.name, rows, spec.rows()));
      if (found == tensors.end()) continue;  // missed by whoever validates
      std::vector<std::int64_t> shape = spec.shape;
      if (!shape.empty()) shape[0] = rows.count();
      HostTensor decoded = HostTensor::empty(DType::f32, shape);
      TESSERA_TRY(decode_change(*wire.codec, found->first, found->second, decoded.as<float>()));
      found->second = std::move(decoded);
    }
  }
  return {};
}

TensorMap encode_update(const Wire& wire, const RowSet& rows, const TensorMap& base, TensorMap& theta,
                        const TensorMap& residuals) {
  TensorMap update;
  for (const auto& [name, ranges] : rows) {
    for (const Rows& range : ranges) {
      const std::span<const float> from = floats_of(base, name, range);
      const std::span<float> to = floats_of(theta, name, range);
      std::span<float> residual;
      if (wire.keeps_residual()) residual = floats_of(residuals, name, range);
      for (std::size_t i = 0; i < to.size(); ++i) to[i] -= from[i];
      update.emplace(piece_name(name, range, rows_in(theta.at(name))), encode_change(wire, to, residual));
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = from[i] + to[i];
    }
  }
  return update;
}

Result<Buffer> apply_update(const Wire& wire, const Buffer& base, const Buffer& update) {
  TESSERA_CHECK(wire.rounds(), ": updates are of codecs that round");
  TESSERA_ASSIGN(SafetensorsFile file, decode_safetensors(base, "the version before"));
  TESSERA_ASSIGN(const SafetensorsFile changes, decode_safetensors(update, "an update"));
  take_moments(file.tensors);  // of another version
  TensorMap& theta = file.tensors;
  for (auto& [name, tensor] : theta) tensor = tensor.clone();
  std::vector<float> change;
  for (const auto& [name, tensor] : changes.tensors) {
    if (tensor.dtype == DType::f32) {
      theta.insert_or_assign(name, tensor);
      continue;
    }
    const std::string param = name.substr(0, name.find('['));
    const auto whole = theta.find(param);
    const Rows rows = rows_of_piece(name, whole == theta.end() ? 0 : rows_in(whole->second)).rows;
    const std::optional<HostTensor> piece = find_rows(theta, param, rows);
    if (!piece || piece->dtype != DType::f32)
      return fail(ExitCode::failed, "an update of ", name, ", which the version before does not have");
    const std::span<float> to = piece->as<float>();
    change.resize(to.size());
    TESSERA_TRY(decode_change(*wire.codec, name, tensor, change));
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = to[i] + change[i];
  }
  return encode_safetensors(theta);
}

}  // namespace tessera
