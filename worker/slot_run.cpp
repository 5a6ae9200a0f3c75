#include "worker/slot_run.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <set>

#include "base/pieces.h"
#include "worker/torch_bridge.h"

namespace tessera {
namespace {

constexpr std::string_view inner_prefix = "inner/";
constexpr std::string_view feedback_prefix = "feedback/";
constexpr std::string_view since_prefix = "slot/since/";
constexpr std::string_view view_prefix = "view/";
constexpr std::string_view base_prefix = "base/";
constexpr std::string_view method_prefix = "method/";
constexpr const char* step_name = "slot/step";
constexpr const char* adopted_name = "slot/adopted";
constexpr const char* pushed_name = "slot/pushed";
constexpr const char* left_out_name = "slot/left_out";
constexpr const char* scale_name = "slot/loss_scale";

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

std::int64_t rows_of(const at::Tensor& tensor) {
  return tensor.dim() == 0 ? 1 : tensor.size(0);
}

/// Rows of one age within a range of a parameter.
struct Aged {
  Rows rows;
  std::int64_t since = 0;
};
std::vector<Aged> ages_of(const std::map<std::string, std::map<Rows, std::int64_t>>& since,
                          const std::string& param, Rows range) {
  const auto came = since.find(param);
  std::vector<Aged> aged;
  std::int64_t next = range.begin;
  if (came != since.end()) {
    for (const auto& [rows, at] : came->second) {
      if (rows.end <= range.begin || rows.begin >= range.end) continue;
      if (rows.begin > next) aged.push_back({{next, rows.begin}, 0});
      aged.push_back({rows, at});
      next = rows.end;
    }
  }
  if (range.end > next) aged.push_back({{next, range.end}, 0});
  return aged;
}

/// Where rows of a parameter's moments can be had.
struct MomentRows {
  Rows rows;
  at::Tensor values;
};
using Moments = std::map<std::string, std::map<std::string, std::vector<MomentRows>>>;  // name, parameter

/// Of the optimizer's state, what lies in `wanted`.
Moments moments_in(const InnerOptimizer& inner, const RowSet& wanted) {
  Moments moments;
  for (const auto& [name, tensor] : inner.state()) {
    const std::size_t slash = name.rfind('/');
    const PieceRows from = rows_of_piece(name.substr(0, slash), rows_of(tensor));
    const auto here = wanted.find(from.param);
    if (here == wanted.end()) continue;
    for (const Rows& range : here->second) {
      const Rows rows{std::max(range.begin, from.rows.begin), std::min(range.end, from.rows.end)};
      if (rows.count() <= 0) continue;
      const bool all = rows == from.rows;
      moments[name.substr(slash + 1)][from.param].push_back(
          {rows, all ? tensor : tensor.narrow(0, rows.begin - from.rows.begin, rows.count())});
    }
  }
  return moments;
}

/// One tensor of these rows, zeros where there is nothing.
at::Tensor gathered(const std::vector<MomentRows>& from, Rows rows) {
  std::vector<std::int64_t> shape = from.front().values.sizes().vec();
  if (!shape.empty()) shape[0] = rows.count();
  at::Tensor whole = at::zeros(shape, from.front().values.options());
  for (const MomentRows& part : from) {
    const Rows common{std::max(rows.begin, part.rows.begin), std::min(rows.end, part.rows.end)};
    if (common.count() <= 0) continue;
    if (shape.empty()) {
      whole.copy_(part.values);
    } else {
      whole.narrow(0, common.begin - rows.begin, common.count())
          .copy_(part.values.narrow(0, common.begin - part.rows.begin, common.count()));
    }
  }
  return whole;
}

/// The residuals of what is owned now: rows that come have none, which is zero.
TensorMap residuals_of(const TensorMap& before, const RowSet& owned, const std::vector<ParamSpec>& specs) {
  TensorMap after;
  for (const ParamSpec& spec : specs) {
    const auto ranges = owned.find(spec.name);
    if (before.empty() || ranges == owned.end()) continue;
    for (const Rows& range : ranges->second) {
      std::vector<std::int64_t> shape = spec.shape;
      if (!shape.empty()) shape[0] = range.count();
      HostTensor piece = HostTensor::zeros(DType::f32, shape);
      for (auto at = before.lower_bound(spec.name); at != before.end() && at->first.starts_with(spec.name);
           ++at) {
        const PieceRows from = rows_of_piece(at->first, spec.rows());
        const Rows common{std::max(range.begin, from.rows.begin), std::min(range.end, from.rows.end)};
        if (from.param != spec.name || common.count() <= 0) continue;
        const auto row = static_cast<std::size_t>(spec.row_size());
        std::ranges::copy(
            at->second.as<float>().subspan(static_cast<std::size_t>(common.begin - from.rows.begin) * row,
                                           static_cast<std::size_t>(common.count()) * row),
            piece.as<float>().begin() + (common.begin - range.begin) * spec.row_size());
      }
      after.emplace(piece_name(spec.name, range, spec.rows()), std::move(piece));
    }
  }
  return after;
}

std::map<std::string, std::int64_t> all_rows(const std::vector<ParamSpec>& specs) {
  std::map<std::string, std::int64_t> rows;
  for (const ParamSpec& spec : specs) rows[spec.name] = spec.rows();
  return rows;
}

}  // namespace

void SlotRun::own(RowSet rows, std::int64_t at, const std::vector<ParamSpec>& specs,
                  const TensorMap& handed) {
  if (rows == owned) return;
  const RowSet kept = common_rows(rows, owned), come = rows_without(rows, owned);
  Moments moments = moments_in(*inner, kept);
  RowSet with_moments;  // rows that somebody trained before
  for (const auto& [name, tensor] : handed) {
    const std::size_t slash = name.find('/');
    const std::string moment =
        name.substr(std::string_view(moment_prefix).size(), slash - std::string_view(moment_prefix).size());
    const PieceRows piece = rows_of_piece(name.substr(slash + 1), rows_of(torch_view(tensor)));
    for (const auto& [param, ranges] : common_rows(come, {{piece.param, {piece.rows}}})) {
      for (const Rows& range : ranges) {
        const at::Tensor brought =
            torch_view(tensor).narrow(0, range.begin - piece.rows.begin, range.count());
        if (!brought.any().item<bool>()) continue;
        moments[moment][param].push_back({range, brought});
        add_rows(with_moments, param, range);
      }
    }
  }

  std::map<std::string, std::map<Rows, std::int64_t>> ages;
  for (const auto& [param, came] : since) {
    for (const auto& [range, step_then] : came) {
      for (const auto& [name, ranges] : common_rows({{param, {range}}}, kept)) {
        for (const Rows& left : ranges) ages[name][left] = step_then;
      }
    }
  }
  for (const auto& [param, ranges] : rows_without(come, with_moments)) {
    for (const Rows& range : ranges) {
      if (at > 0) ages[param][range] = at;
    }
  }
  owned = std::move(rows);
  since = std::move(ages);
  residuals = residuals_of(residuals, owned, specs);

  std::map<std::string, at::Tensor> state;
  const std::map<std::string, std::int64_t> count = all_rows(specs);
  for (const auto& [moment, params] : moments) {
    for (const auto& [param, parts] : params) {
      for (const Rows& range : owned.at(param)) {
        for (const Aged& aged : ages_of(since, param, range)) {
          const bool known = std::any_of(parts.begin(), parts.end(), [&](const MomentRows& part) {
            return part.rows.begin < aged.rows.end && aged.rows.begin < part.rows.end;
          });
          if (known)
            state[piece_name(param, aged.rows, count.at(param)) + "/" + moment] = gathered(parts, aged.rows);
        }
      }
    }
  }
  inner->load(state);
}

TensorMap SlotRun::moments_of(const std::string& moment, const RowSet& rows,
                              const std::vector<ParamSpec>& specs) const {
  TensorMap tensors;
  const Moments all = moments_in(*inner, rows);
  const auto known = all.find(moment);
  for (const ParamSpec& spec : specs) {
    const auto ranges = rows.find(spec.name);
    if (ranges == rows.end()) continue;
    const bool any = known != all.end() && known->second.contains(spec.name);
    for (const Rows& range : ranges->second) {
      std::vector<std::int64_t> shape = spec.shape;
      if (!shape.empty()) shape[0] = range.count();
      tensors.emplace(moment_name(moment, piece_name(spec.name, range, spec.rows())),
                      any ? host_copy(gathered(known->second.at(spec.name), range))
                          : HostTensor::zeros(DType::f32, shape));
    }
  }
  return tensors;
}

void SlotRun::replace_moments(const TensorMap& means) {
  std::map<std::string, at::Tensor> state = inner->state();
  for (auto& [name, tensor] : state) {
    const std::size_t slash = name.rfind('/');
    const PieceRows piece = rows_of_piece(name.substr(0, slash), rows_of(tensor));
    const std::string moment = moment_name(name.substr(slash + 1), piece.param);
    const std::vector<PieceOf> parts = pieces_within(means, moment, piece.rows);
    if (parts.empty()) continue;
    tensor = tensor.clone();
    for (const PieceOf& part : parts) {
      const at::Tensor to = tensor.dim() == 0
                                ? tensor
                                : tensor.narrow(0, part.rows.begin - piece.rows.begin, part.rows.count());
      to.copy_(torch_view(part.values));
    }
  }
  inner->load(state);
}

std::vector<Piece> SlotRun::by_age(const std::vector<Piece>& pieces) const {
  std::vector<Piece> aged;
  for (const Piece& piece : pieces) {
    const PieceRows all = rows_of_piece(piece.name, rows_of(piece.value));
    for (const Aged& part : ages_of(since, all.param, all.rows)) {
      aged.push_back(piece);
      aged.back().since = part.since;
      if (part.rows == all.rows) continue;
      const std::int64_t begin = part.rows.begin - all.rows.begin, count = part.rows.count();
      aged.back().name = piece_name(all.param, part.rows, -1);
      aged.back().value = piece.value.narrow(0, begin, count);
      if (piece.gradient.defined()) aged.back().gradient = piece.gradient.narrow(0, begin, count);
    }
  }
  return aged;
}

TensorMap SlotRun::state(const SlotProgress& progress, const TensorMap& view, const TensorMap& bases) const {
  TensorMap state;
  for (const auto& [piece, tensor] : bases) state.emplace(std::string(base_prefix) + piece, tensor);
  if (left_out > 0) state.emplace(left_out_name, HostTensor::of<std::int64_t>(DType::i64, {1}, {left_out}));
  for (const auto& [name, tensor] : view) state.emplace(std::string(view_prefix) + name, tensor);
  for (const auto& [name, tensor] : inner->state())
    state.emplace(std::string(inner_prefix) + name, host_copy(tensor));
  for (const auto& [piece, tensor] : residuals) state.emplace(std::string(feedback_prefix) + piece, tensor);
  for (const auto& [name, tensor] : method) state.emplace(std::string(method_prefix) + name, tensor);
  for (const auto& [param, came] : since) {
    for (const auto& [rows, at] : came) {
      state.emplace(std::string(since_prefix) + piece_name(param, rows, -1),
                    HostTensor::of<std::int64_t>(DType::i64, {1}, {at}));
    }
  }
  if (loss_scale) {
    const std::vector<std::int64_t> scale = loss_scale->state();
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(scale.size())};
    state.emplace(scale_name, HostTensor::of<std::int64_t>(DType::i64, shape, scale));
  }
  state.emplace(step_name, HostTensor::of<std::int64_t>(DType::i64, {1}, {progress.step}));
  state.emplace(adopted_name, versions_tensor(progress.adopted));
  state.emplace(pushed_name, versions_tensor(progress.pushed));
  return state;
}

/// False: a base of what the slot has no values of.
bool SlotRun::park_above(const TensorMap& bases) {
  if (bases.empty()) return true;
  for (auto& [name, tensor] : adopted) tensor = tensor.clone();
  for (const auto& [name, base] : bases) {
    const PieceRows piece = rows_of_piece(name, base.shape.empty() ? 1 : base.shape[0]);
    const std::optional<HostTensor> viewed = find_rows(adopted, piece.param, piece.rows);
    if (!viewed || viewed->shape != base.shape) return false;
    parked.emplace(name, viewed->clone());
    std::ranges::copy(base.as<float>(), viewed->as<float>().begin());
  }
  return true;
}

Result<SlotProgress> SlotRun::load(const TensorMap& state) {
  TESSERA_ASSIGN(auto saved_step, integers(state, step_name, slot));
  TESSERA_ASSIGN(auto adopted_versions, integers(state, adopted_name, slot));
  TESSERA_ASSIGN(auto pushed_versions, integers(state, pushed_name, slot));
  if (saved_step.size() != 1)
    return fail(ExitCode::storage, "the saved state of slot ", slot, " has a malformed step counter");
  if (loss_scale) {
    TESSERA_ASSIGN(auto scale, integers(state, scale_name, slot));
    if (!loss_scale->load(scale))
      return fail(ExitCode::storage, "the saved state of slot ", slot, " has a malformed loss scale");
  }
  if (state.contains(left_out_name)) {
    TESSERA_ASSIGN(auto steps, integers(state, left_out_name, slot));
    if (steps.size() != 1)
      return fail(ExitCode::storage, "the saved state of slot ", slot, " has a malformed step counter");
    left_out = steps[0];
  }
  std::map<std::string, at::Tensor> moments;
  TensorMap bases;
  for (const auto& [name, tensor] : state) {
    if (name.starts_with(base_prefix)) {
      bases.emplace(name.substr(base_prefix.size()), tensor);
    } else if (name.starts_with(inner_prefix)) {
      moments.emplace(name.substr(inner_prefix.size()), torch_view(tensor));
    } else if (name.starts_with(feedback_prefix)) {
      residuals.emplace(name.substr(feedback_prefix.size()), tensor.clone());
    } else if (name.starts_with(since_prefix)) {
      TESSERA_ASSIGN(auto at, integers(state, name, slot));
      const PieceRows piece = rows_of_piece(name.substr(since_prefix.size()), 0);
      if (at.size() != 1 || piece.rows.count() <= 0)
        return fail(ExitCode::storage, "the saved state of slot ", slot, " has a malformed '", name, "'");
      since[piece.param][piece.rows] = at[0];
    } else if (name.starts_with(view_prefix)) {
      adopted.insert_or_assign(name.substr(view_prefix.size()), tensor);
    } else if (name.starts_with(method_prefix)) {
      method.insert_or_assign(name.substr(method_prefix.size()), tensor.clone());  // changed in place
    } else if (!name.starts_with("slot/")) {
      return fail(ExitCode::storage, "the saved state of slot ", slot, " has an unknown tensor '", name, "'");
    }
  }
  if (!park_above(bases))
    return fail(ExitCode::storage, "the saved state of slot ", slot, " has bases without a view");
  inner->load(moments);
  step = saved_step[0];
  return SlotProgress{
      .step = step, .adopted = as_versions(adopted_versions), .pushed = as_versions(pushed_versions)};
}

}  // namespace tessera
