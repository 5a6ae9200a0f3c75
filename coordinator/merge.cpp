#include "coordinator/merge.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <deque>
#include <optional>
#include <set>

#include "base/finite.h"
#include "base/parallel.h"
#include "base/pieces.h"
#include "base/text.h"
#include "coordinator/blend.h"
#include "coordinator/slot_mean.h"

namespace tessera {
namespace {

const std::string fast_prefix = "fast/";

std::size_t offset_of(const ParamSpec& spec, std::int64_t row) {
  return static_cast<std::size_t>(row * spec.row_size());
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::vector<std::string> parts;
  for (std::int64_t dimension : shape) parts.push_back(std::to_string(dimension));
  return "[" + join(parts, ", ") + "]";
}

/// The rows that a piece's name says it holds of `spec`; nothing when it is a piece of another parameter.
std::optional<Rows> rows_of_piece(const std::string& piece, const ParamSpec& spec) {
  if (piece == spec.name) return Rows{0, spec.rows()};
  if (piece.size() <= spec.name.size() || piece.compare(0, spec.name.size(), spec.name) != 0)
    return std::nullopt;
  if (piece[spec.name.size()] != '[') return std::nullopt;
  Rows rows;
  const char* const end = piece.data() + piece.size();
  auto first = std::from_chars(piece.data() + spec.name.size() + 1, end, rows.begin);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != ':') return std::nullopt;
  auto second = std::from_chars(first.ptr + 1, end, rows.end);
  const bool whole = second.ec == std::errc() && second.ptr + 1 == end && *second.ptr == ']';
  TESSERA_CHECK(whole && 0 <= rows.begin && rows.begin < rows.end && rows.end <= spec.rows(),
                ": no such piece: ", piece);
  return rows;
}

/// Calls visit(rows, values) for the pieces of one parameter in an input. Names sort so that they stand
/// together.
template <class Visit>
void for_each_piece(const TensorMap& pieces, const ParamSpec& spec, Visit visit) {
  for (auto at = pieces.lower_bound(spec.name); at != pieces.end() && at->first.starts_with(spec.name);
       ++at) {
    const std::optional<Rows> rows = rows_of_piece(at->first, spec);
    if (!rows) continue;
    const std::span<const float> values = at->second.as<float>();
    TESSERA_CHECK_EQ(static_cast<std::int64_t>(values.size()), rows->count() * spec.row_size());
    visit(*rows, values);
  }
}

/// What the owners of a range go on with: the mean of what they brought; of a single one, its very bits
/// (start - (start - end) is the end but for one that is 2^29 times smaller).
void store_fast(const Update& update, const std::vector<const MergeInput*>& inputs, std::span<float> fast) {
  for (std::size_t i = 0; i < fast.size(); ++i)
    fast[i] = static_cast<float>(static_cast<double>(update.theta[i]) - update.delta[i]);
  if (update.owners != 1) return;
  for (const MergeInput* input : inputs) {
    for_each_piece(input->pieces, *update.spec, [&](Rows rows, std::span<const float> values) {
      const Rows both{std::max(rows.begin, update.rows.begin), std::min(rows.end, update.rows.end)};
      if (both.count() <= 0) return;
      std::ranges::copy(values.subspan(offset_of(*update.spec, both.begin - rows.begin),
                                       offset_of(*update.spec, both.count())),
                        fast.begin() + static_cast<std::ptrdiff_t>(
                                           offset_of(*update.spec, both.begin - update.rows.begin)));
    });
  }
}

std::span<float> floats_of(TensorMap& tensors, const std::string& name, const ParamSpec& spec) {
  auto found = tensors.find(name);
  TESSERA_CHECK(found != tensors.end(), ": no tensor ", name);
  TESSERA_CHECK_EQ(found->second.elements(), spec.elements());
  return found->second.as<float>();
}

std::vector<const MergeInput*> in_slot_order(const std::vector<MergeInput>& inputs) {
  std::vector<const MergeInput*> sorted;
  for (const MergeInput& input : inputs) sorted.push_back(&input);
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->slot < b->slot; });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    TESSERA_CHECK(sorted[i - 1]->slot != sorted[i]->slot, ": slot ", sorted[i]->slot,
                  " is in one merge twice");
  }
  return sorted;
}

/// Elements that all inputs bring.
double brought_elements(const std::vector<const MergeInput*>& inputs) {
  double elements = 0;
  for (const MergeInput* input : inputs) {
    for (const auto& [name, tensor] : input->pieces) elements += static_cast<double>(tensor.elements());
  }
  return elements;
}

void store_buffer_mean(const SlotMean& mean, std::span<float> theta) {
  mean.for_each_run([&](Rows rows, std::int32_t contributions) {
    if (contributions == 0) return;
    std::ranges::transform(mean.mean_of(rows), theta.begin() + offset_of(mean.spec(), rows.begin),
                           [](double value) { return static_cast<float>(value); });
  });
}

/// What each input holds of a range of a parameter.
std::vector<std::vector<BroughtRows>> brought_of(const ParamSpec& spec, Rows range,
                                                 const std::vector<const MergeInput*>& inputs) {
  std::vector<std::vector<BroughtRows>> brought;
  for (const MergeInput* input : inputs) {
    auto& rows = brought.emplace_back();
    for_each_piece(input->pieces, spec, [&](Rows piece, std::span<const float> values) {
      if (piece.end <= range.begin || range.end <= piece.begin) return;  // of another range
      TESSERA_CHECK(range.begin <= piece.begin && piece.end <= range.end, ": a piece of ", spec.name,
                    " lies in two ranges of a fragment");
      rows.push_back({piece, values});
    });
  }
  return brought;
}

bool is_all_finite(std::span<const float> values, int threads) {
  constexpr std::size_t block = std::size_t{1} << 18;
  std::atomic<bool> finite = true;
  parallel_for((values.size() + block - 1) / block, threads, [&](std::size_t i) {
    const std::size_t begin = i * block, count = std::min(block, values.size() - begin);
    if (!all_finite(std::as_bytes(values.subspan(begin, count)))) finite = false;
  });
  return finite;
}

Status check_piece(const std::string& name, const HostTensor& tensor, const std::vector<std::int64_t>& shape,
                   int threads, bool is_finite) {
  if (tensor.dtype != DType::f32) {
    return fail(ExitCode::failed, name, " is ", safetensors_name(tensor.dtype), ", expected F32");
  }
  if (tensor.shape != shape) {
    return fail(ExitCode::failed, name, " has shape ", shape_text(tensor.shape), ", expected ",
                shape_text(shape));
  }
  const std::span<const float> values = tensor.as<float>();
  if (static_cast<std::int64_t>(values.size()) != tensor.elements()) {
    return fail(ExitCode::failed, name, " carries ", values.size(), " values for shape ", shape_text(shape));
  }
  if (is_finite || is_all_finite(values, threads)) return {};
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return fail(ExitCode::failed, name, " is not finite: element ", i, " of ", values.size(), " is ",
                  values[i]);
    }
  }
  return {};
}

}  // namespace

Status validate(const TensorMap& contribution, const RowSet& expected, const std::vector<ParamSpec>& specs,
                int threads, bool is_finite) {
  std::set<std::string> known;
  for (const ParamSpec& spec : specs) {
    auto ranges = expected.find(spec.name);
    if (ranges == expected.end()) continue;
    for (const Rows& rows : ranges->second) {
      const std::string name = piece_name(spec.name, rows, spec.rows());
      known.insert(name);
      auto found = contribution.find(name);
      if (found == contribution.end()) return fail(ExitCode::failed, name, " is missing");
      std::vector<std::int64_t> shape = spec.shape;
      if (!shape.empty()) shape[0] = rows.count();
      TESSERA_TRY(check_piece(name, found->second, shape, threads, is_finite));
    }
  }
  for (const auto& [name, tensor] : contribution) {
    if (!known.count(name)) return fail(ExitCode::failed, name, " is not owned by this slot");
  }
  return {};
}

Deltas deltas_of(const OuterMethod& method, const MergeSettings& settings) {
  if (method.needs_deltas() || method.weighs() || settings.keeps_fast) return Deltas::stored;
  return method.needs_sums() ? Deltas::made_twice : Deltas::made_once;
}

Merger::Merger(std::vector<ParamSpec> specs, std::shared_ptr<const OuterMethod> method,
               MergeSettings settings)
    : specs_(std::move(specs)),
      method_(std::move(method)),
      settings_(std::move(settings)),
      fragments_(fragment_rows(*method_, specs_)) {
  TESSERA_CHECK(!settings_.keeps_fast || method_->payload() == Payload::theta_end,
                ": fast values need contributions that are parameters");
  TESSERA_CHECK(!settings_.keeps_fast || !settings_.brings_changes, ": fast values are not made of changes");
  RowSet seen, all;
  for (const RowSet& fragment : fragments_) {
    const RowSet twice = common_rows(seen, fragment);
    TESSERA_CHECK(twice.empty(), ": ", twice.begin()->first, " is in two fragments");
    add_rows(seen, fragment);
  }
  for (const ParamSpec& spec : specs_) {
    if (travels(spec.role)) add_rows(all, spec.name, {0, spec.rows()});
  }
  const RowSet missing = rows_without(all, seen), never_sent = rows_without(seen, all);
  TESSERA_CHECK(missing.empty(), ": ", missing.begin()->first, " is in no fragment");
  TESSERA_CHECK(never_sent.empty(), ": ", never_sent.begin()->first, " is never sent but in a fragment");
}

std::vector<std::string> Merger::state_names(const std::string& param) const {
  return is_cut(param) ? method_->cut_state_names() : method_->state_names();
}

TensorMap Merger::initial_state(const TensorMap& theta) const {
  TensorMap state;
  for (const ParamSpec& spec : specs_) {
    if (spec.role != Role::weight) continue;
    for (const std::string& kind : state_names(spec.name))
      state.emplace(kind + "/" + spec.name, HostTensor::zeros(DType::f32, spec.shape));
    if (settings_.keeps_fast && is_cut(spec.name))
      state.emplace(fast_prefix + spec.name, theta.at(spec.name).clone());
  }
  return state;
}

TensorMap Merger::fast_values(FragmentId fragment, const TensorMap& state) const {
  TensorMap values;
  if (!settings_.keeps_fast) return values;
  for (const auto& [name, ranges] : fragments_.at(static_cast<std::size_t>(fragment.value))) {
    if (is_cut(name)) add_pieces(values, {{name, state.at(fast_prefix + name)}}, {{name, ranges}});
  }
  return values;
}

RowSet Merger::expected(FragmentId fragment, const RowSet& owned) const {
  RowSet brought = owned;
  for (const ParamSpec& spec : specs_) {
    if (spec.role == Role::buffer) brought[spec.name] = {{0, spec.rows()}};
  }
  return common_rows(fragments_.at(static_cast<std::size_t>(fragment.value)), brought);
}

Status Merger::validate(FragmentId fragment, const RowSet& owned, const TensorMap& contribution,
                        bool is_finite) const {
  return tessera::validate(contribution, expected(fragment, owned), specs_, settings_.threads, is_finite);
}

MergeOutcome Merger::merge(FragmentId fragment, Version version, const std::vector<MergeInput>& inputs,
                           TensorMap& theta, TensorMap& state) const {
  const std::vector<const MergeInput*> ordered = in_slot_order(inputs);
  const RowSet& rows = fragments_.at(static_cast<std::size_t>(fragment.value));
  const auto elements = static_cast<double>(elements_in(rows, specs_));
  const Deltas deltas = deltas_of(*method_, settings_);
  const bool stores = are_stored(deltas, brought_elements(ordered) / elements);
  std::size_t stored = 0;
  for (const ParamSpec& spec : specs_) {
    const auto ranges = rows.find(spec.name);
    if (ranges == rows.end() || !(stores || spec.role == Role::buffer)) continue;
    for (const Rows& range : ranges->second) stored += offset_of(spec, range.count());
  }
  const Buffer memory = scratch_.take(stored * sizeof(double));
  std::span<double> rest(reinterpret_cast<double*>(memory.bytes.data()), stored);
  std::deque<SlotMean> means;  // of the fragment's ranges, parameters in the order of the specs
  std::vector<std::pair<SlotMean*, std::size_t>> blocks;
  for (const ParamSpec& spec : specs_) {
    const auto ranges = rows.find(spec.name);
    if (ranges == rows.end()) continue;
    const bool is_weight = spec.role == Role::weight;
    for (const Rows& range : ranges->second) {
      const std::size_t count = offset_of(spec, range.count());
      const bool from_start =
          is_weight && method_->payload() == Payload::theta_end && !settings_.brings_changes;
      std::span<const float> start;
      if (from_start) start = floats_of(theta, spec.name, spec).subspan(offset_of(spec, range.begin), count);
      const std::span<double> into = rest.first(stores || !is_weight ? count : 0);
      rest = rest.subspan(into.size());
      SlotMean& mean =
          means.emplace_back(spec, range, brought_of(spec, range, ordered), start,
                             is_weight ? settings_.average_over : 0, into, momentum_of(spec, range, state));
      if (is_weight && method_->weighs()) {
        mean.fill([&](const Blended& blended) { blend(*method_, spec, range, ordered, start, blended); });
        continue;
      }
      if (is_weight && deltas == Deltas::made_once) {
        mean.count_owners();
        continue;
      }
      for (std::size_t block = 0; block < mean.blocks(); ++block) blocks.emplace_back(&mean, block);
    }
  }
  parallel_for(blocks.size(), settings_.threads,
               [&](std::size_t i) { blocks[i].first->take(blocks[i].second); });

  std::vector<Update> updates;
  MergeOutcome outcome;
  for (SlotMean& mean : means) {
    const std::string& name = mean.spec().name;
    if (mean.spec().role == Role::buffer) {
      store_buffer_mean(mean, floats_of(theta, name, mean.spec()));
      continue;
    }
    add_updates(mean, ordered, theta, state, updates, outcome);
  }
  outcome.outer = method_->apply(version.value, updates);
  double norm_squares = 0;
  for (const Update& update : updates) norm_squares += products_of(update).squares;
  outcome.delta_norm = std::sqrt(norm_squares);
  return outcome;
}

/// What a method that steps along the delta multiplies it with; empty where there is none.
std::span<const float> Merger::momentum_of(const ParamSpec& spec, Rows range, TensorMap& state) const {
  if (spec.role != Role::weight || method_->payload() == Payload::gradient) return {};
  const std::vector<std::string> kinds = state_names(spec.name);
  if (kinds.empty()) return {};
  return floats_of(state, kinds[0] + "/" + spec.name, spec)
      .subspan(offset_of(spec, range.begin), offset_of(spec, range.count()));
}

/// What the method is to apply of a parameter's mean, and what nobody contributed to.
void Merger::add_updates(SlotMean& mean, const std::vector<const MergeInput*>& inputs, TensorMap& theta,
                         TensorMap& state, std::vector<Update>& updates, MergeOutcome& outcome) const {
  const ParamSpec& spec = mean.spec();
  const std::vector<std::string> kinds = state_names(spec.name);
  mean.for_each_run([&](Rows rows, std::int32_t contributions) {
    const std::size_t begin = offset_of(spec, rows.begin), count = offset_of(spec, rows.count());
    if (contributions == 0) {
      outcome.uncovered += static_cast<std::int64_t>(count);
      outcome.uncovered_pieces.push_back(piece_name(spec.name, rows, spec.rows()));
      add_rows(outcome.uncovered_rows, spec.name, rows);
      return;
    }
    Update update{.spec = &spec,
                  .rows = rows,
                  .theta = floats_of(theta, spec.name, spec).subspan(begin, count),
                  .delta = mean.is_stored() ? mean.mean_of(rows) : std::span<double>(),
                  .state = {},
                  .owners = contributions,
                  .cut = is_cut(spec.name),
                  .squares = mean.squares_of(rows),
                  .threads = settings_.threads,
                  .products = {},
                  .maker = mean.is_stored() ? nullptr : mean.maker_of(rows)};
    if (mean.has_sums()) update.products = mean.products_of(rows);
    for (const std::string& kind : kinds) {
      update.state.push_back(floats_of(state, kind + "/" + spec.name, spec).subspan(begin, count));
    }
    if (settings_.keeps_fast && update.cut) {
      store_fast(update, inputs, floats_of(state, fast_prefix + spec.name, spec).subspan(begin, count));
    }
    outcome.updated += static_cast<std::int64_t>(count);
    updates.push_back(std::move(update));
  });
}

}  // namespace tessera
