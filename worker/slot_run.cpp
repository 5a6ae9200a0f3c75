#include "worker/slot_run.h"

#include <algorithm>
#include <charconv>

#include "worker/torch_bridge.h"

namespace tessera {
namespace {

constexpr std::string_view inner_prefix = "inner/";
constexpr std::string_view since_prefix = "slot/since/";
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

/// "blocks.0.mlp.up[0:64]" or a bare name, which stands for all rows.
struct PieceRows {
  std::string param;
  Rows rows;
};
PieceRows piece_rows(const std::string& piece, std::int64_t all_rows) {
  const std::size_t bracket = piece.find('[');
  if (bracket == std::string::npos) return {piece, {0, all_rows}};
  PieceRows found{piece.substr(0, bracket), {}};
  const char *begin = piece.data() + bracket + 1, *const end = piece.data() + piece.size();
  const char* colon = std::from_chars(begin, end, found.rows.begin).ptr;
  if (colon != end) std::from_chars(colon + 1, end, found.rows.end);
  return found;
}

std::int64_t rows_of(const at::Tensor& tensor) {
  return tensor.dim() == 0 ? 1 : tensor.size(0);
}

}  // namespace

void SlotRun::own(RowSet rows, std::int64_t at, const std::vector<ParamSpec>& specs) {
  if (rows == owned) return;
  std::map<std::string, std::map<Rows, std::int64_t>> ages;
  const RowSet kept = common_rows(rows, owned), come = rows_without(rows, owned);
  for (const auto& [param, came] : since) {
    for (const auto& [range, step_then] : came) {
      for (const auto& [name, ranges] : common_rows({{param, {range}}}, kept)) {
        for (const Rows& left : ranges) ages[name][left] = step_then;
      }
    }
  }
  for (const auto& [param, ranges] : come) {
    for (const Rows& range : ranges) {
      if (at > 0) ages[param][range] = at;
    }
  }
  owned = std::move(rows);
  since = std::move(ages);

  std::map<std::string, at::Tensor> moments;
  for (const auto& [name, tensor] : inner->state()) {
    const std::size_t slash = name.rfind('/');
    const PieceRows from = piece_rows(name.substr(0, slash), rows_of(tensor));
    const auto here = kept.find(from.param);
    if (here == kept.end()) continue;
    const auto spec =
        std::find_if(specs.begin(), specs.end(), [&](const ParamSpec& s) { return s.name == from.param; });
    for (const Rows& whole : here->second) {
      const Rows stays{std::max(whole.begin, from.rows.begin), std::min(whole.end, from.rows.end)};
      if (stays.count() <= 0) continue;
      const at::Tensor part =
          stays == from.rows ? tensor : tensor.narrow(0, stays.begin - from.rows.begin, stays.count());
      moments.emplace(piece_name(from.param, stays, spec->rows()) + name.substr(slash), part);
    }
  }
  inner->load(moments);
}

std::vector<Piece> SlotRun::by_age(const std::vector<Piece>& pieces) const {
  std::vector<Piece> aged;
  for (const Piece& piece : pieces) {
    const PieceRows all = piece_rows(piece.name, rows_of(piece.value));
    const auto came = since.find(all.param);
    if (came == since.end()) {
      aged.push_back(piece);
      continue;
    }
    const auto add = [&](Rows rows, std::int64_t at) {
      if (rows.count() <= 0) return;
      Piece part = piece;
      part.since = at;
      if (rows != all.rows) {
        const std::int64_t begin = rows.begin - all.rows.begin;
        part.name = piece_name(all.param, rows, -1);
        part.value = piece.value.narrow(0, begin, rows.count());
        if (part.gradient.defined()) part.gradient = piece.gradient.narrow(0, begin, rows.count());
      }
      aged.push_back(std::move(part));
    };
    std::int64_t next = all.rows.begin;
    for (const auto& [rows, at] : came->second) {
      if (rows.end <= all.rows.begin || rows.begin >= all.rows.end) continue;
      add({next, rows.begin}, 0);
      add(rows, at);
      next = rows.end;
    }
    add({next, all.rows.end}, 0);
  }
  return aged;
}

TensorMap SlotRun::state(const SlotProgress& progress) const {
  TensorMap state;
  for (const auto& [name, tensor] : inner->state())
    state.emplace(std::string(inner_prefix) + name, host_copy(tensor));
  for (const auto& [param, came] : since) {
    for (const auto& [rows, at] : came) {
      state.emplace(std::string(since_prefix) + piece_name(param, rows, -1),
                    HostTensor::of<std::int64_t>(DType::i64, {1}, {at}));
    }
  }
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
    } else if (name.starts_with(since_prefix)) {
      TESSERA_ASSIGN(auto at, integers(state, name, slot));
      const PieceRows piece = piece_rows(name.substr(since_prefix.size()), 0);
      if (at.size() != 1 || piece.rows.count() <= 0)
        return fail(ExitCode::storage, "the saved state of slot ", slot, " has a malformed '", name, "'");
      since[piece.param][piece.rows] = at[0];
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
