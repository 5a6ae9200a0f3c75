#include "coordinator/hand_over.h"

#include <algorithm>

#include "coordinator/merge.h"

namespace tessera {
namespace {

const ParamSpec& spec_of(const std::vector<ParamSpec>& specs, const std::string& name) {
  const auto found =
      std::find_if(specs.begin(), specs.end(), [&](const ParamSpec& spec) { return spec.name == name; });
  TESSERA_CHECK(found != specs.end(), ": no parameter named ", name);
  return *found;
}

/// The mean of one moment of one parameter, row by row over those who brought it.
void merge_one(const std::string& name, const ParamSpec& spec, const std::vector<TensorMap>& brought,
               std::span<float> kept) {
  const auto row = static_cast<std::size_t>(spec.row_size());
  std::vector<double> sum(static_cast<std::size_t>(spec.elements()), 0);
  std::vector<std::int32_t> owners(static_cast<std::size_t>(spec.rows()), 0);
  for (const TensorMap& moments : brought) {
    for (auto at = moments.lower_bound(name); at != moments.end() && at->first.starts_with(name); ++at) {
      const PieceRows piece = rows_of_piece(at->first.substr(at->first.find('/') + 1), spec.rows());
      if (piece.param != spec.name) continue;
      const std::span<const float> values = at->second.as<float>();
      const auto first = static_cast<std::size_t>(piece.rows.begin) * row;
      for (std::size_t i = 0; i < values.size(); ++i) sum[first + i] += static_cast<double>(values[i]);
      for (std::int64_t r = piece.rows.begin; r < piece.rows.end; ++r) ++owners[r];
    }
  }
  for (std::size_t i = 0; i < sum.size(); ++i) {
    if (owners[i / row] > 0) kept[i] = static_cast<float>(sum[i] / owners[i / row]);
  }
}

}  // namespace

TensorMap initial_moments(const HandOver& settings, const std::vector<ParamSpec>& specs) {
  TensorMap state;
  for (const std::string& moment : settings.moments) {
    for (const std::string& param : settings.params)
      state.emplace(moment_name(moment, param), HostTensor::zeros(DType::f32, spec_of(specs, param).shape));
  }
  return state;
}

Status validate_moments(const TensorMap& moments, const std::map<std::string, RowSet>& rows,
                        const std::vector<ParamSpec>& specs) {
  std::map<std::string, TensorMap> by_moment;
  for (const auto& [moment, expected] : rows) by_moment[moment];
  for (const auto& [name, tensor] : moments) {
    const std::size_t begin = std::string_view(moment_prefix).size(), slash = name.find('/');
    const auto known = by_moment.find(name.substr(begin, slash - begin));
    if (slash == std::string::npos || known == by_moment.end())
      return fail(ExitCode::failed, name, " is not a moment of the optimizer");
    known->second.emplace(name.substr(slash + 1), tensor);
  }
  for (const auto& [moment, pieces] : by_moment) {
    if (const Status valid = validate(pieces, rows.at(moment), specs); !valid.ok())
      return fail(valid.error().code, "moment ", moment, ": ", valid.error().message);
  }
  return {};
}

void merge_moments(const HandOver& settings, Version version, const std::vector<TensorMap>& brought,
                   const std::vector<ParamSpec>& specs, TensorMap& state) {
  for (const std::string& moment : settings.moments) {
    if (!settings.is_due(moment, version)) continue;
    for (const std::string& param : settings.params) {
      const std::string name = moment_name(moment, param);
      merge_one(name, spec_of(specs, param), brought, state.at(name).as<float>());
    }
  }
}

}  // namespace tessera
