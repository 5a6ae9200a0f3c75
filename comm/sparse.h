// Tensors of which some coordinates travel, that both ends can name (OuterMethod::coordinates): their values
// alone go over the wire, as F32 [count].
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/params.h"
#include "base/tensor.h"

namespace tessera {

/// The values of an F32 tensor at these coordinates.
HostTensor picked(const HostTensor& from, const std::vector<std::int64_t>& coordinates);
/// The reverse, into `values`. Error: not as many; `name` says of what.
Status put_back(const std::string& name, const HostTensor& picked,
                const std::vector<std::int64_t>& coordinates, std::span<float> values);

/// Which coordinates of a parameter a version is about; none: all.
using Coordinates =
    std::function<std::optional<std::vector<std::int64_t>>(const std::string& param, std::int64_t version)>;
/// What a version changes: the values of these parameters at its coordinates, and the version's number; empty
/// where it is all of them.
TensorMap sparse_update(const TensorMap& parameters, std::int64_t version, const Coordinates& coordinates);
/// The file of parameters that such an update makes of the file of the version before. Error: damaged, or not
/// an update of this base.
Result<Buffer> apply_sparse_update(const Buffer& base, const Buffer& update, const Coordinates& coordinates);

}  // namespace tessera
