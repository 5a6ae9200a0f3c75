#include "coordinator/merge.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include "base/pieces.h"
#include "base/text.h"

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

/// The share that rows of one parameter have in a merge: the mean of what their owners brought, and how many
/// there were for each row.
struct Mean {
  std::int64_t first;  ///< the first of the rows; all that follows counts from it
  std::span<double> sum;
  std::vector<std::int32_t> owners;  ///< m per row
  std::vector<double> squares;       ///< of all contributions' deltas, per row

  Mean(std::span<double> zeros, Rows range)
      : first(range.begin), sum(zeros), owners(range.count()), squares(range.count()) {}

  void add(const ParamSpec& spec, Rows rows, std::span<const float> values, std::span<const float> start) {
    const auto width = static_cast<std::size_t>(spec.row_size());
    for (std::int64_t row = rows.begin - first; row < rows.end - first; ++row) {
      const std::size_t offset = offset_of(spec, row);
      const float* const brought = values.data() + offset_of(spec, first + row - rows.begin);
      double row_squares = 0;
      for (std::size_t i = 0; i < width; ++i) {
        const double value = static_cast<double>(brought[i]);
        const double delta = start.empty() ? value : static_cast<double>(start[offset + i]) - value;
        sum[offset + i] += delta;
        row_squares += delta * delta;
      }
      squares[row] += row_squares;
      ++owners[row];
    }
  }

  /// Everything that the inputs, in slot order, hold of these rows of `spec`; as differences from `start`
  /// unless that is empty.
  void take(const ParamSpec& spec, const std::vector<const MergeInput*>& inputs, std::span<const float> start,
            std::int32_t average_over) {
    for (const MergeInput* input : inputs) {
      for_each_piece(input->pieces, spec, [&](Rows rows, std::span<const float> values) {
        const std::int64_t end = first + static_cast<std::int64_t>(owners.size());
        if (rows.end <= first || end <= rows.begin) return;  // another range of the fragment's
        TESSERA_CHECK(first <= rows.begin && rows.end <= end, ": a piece of ", spec.name, " in two ranges");
        add(spec, rows, values, start);
      });
    }
    divide(spec, average_over);
  }

  void divide(const ParamSpec& spec, std::int32_t average_over) {
    for (std::int64_t row = 0; row < static_cast<std::int64_t>(owners.size()); ++row) {
      const std::int32_t divisor = average_over > 0 ? average_over : owners[row];
      if (owners[row] == 0 || divisor < 2) continue;  // dividing by one changes nothing
      for (double& value : sum.subspan(offset_of(spec, row), spec.row_size())) value /= divisor;
    }
  }

  /// Calls visit(rows, m) for the maximal runs of rows that have equally many contributions.
  template <class Visit>
  void for_each_run(Visit visit) const {
    const std::int64_t rows = static_cast<std::int64_t>(owners.size());
    for (std::int64_t begin = 0, end = 0; begin < rows; begin = end) {
      while (end < rows && owners[end] == owners[begin]) ++end;
      visit(Rows{first + begin, first + end}, owners[begin]);
    }
  }

  double squares_of(Rows rows) const {
    double total = 0;
    for (std::int64_t row = rows.begin; row < rows.end; ++row) total += squares[row - first];
    return total;
  }
  /// The mean of some of the rows.
  std::span<double> of(const ParamSpec& spec, Rows rows) const {
    return sum.subspan(offset_of(spec, rows.begin - first), offset_of(spec, rows.count()));
  }
};

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

double norm_of(const std::vector<Update>& updates) {
  double squares = 0;
  for (const Update& update : updates) {
    for (double value : update.delta) squares += value * value;
  }
  return std::sqrt(squares);
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

void store_buffer_mean(const ParamSpec& spec, const Mean& mean, std::span<float> theta) {
  mean.for_each_run([&](Rows rows, std::int32_t contributions) {
    if (contributions == 0) return;
    std::ranges::transform(mean.of(spec, rows), theta.begin() + offset_of(spec, rows.begin),
                           [](double value) { return static_cast<float>(value); });
  });
}

Status check_piece(const std::string& name, const HostTensor& tensor,
                   const std::vector<std::int64_t>& shape) {
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
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return fail(ExitCode::failed, name, " is not finite: element ", i, " of ", values.size(), " is ",
                  values[i]);
    }
  }
  return {};
}

}  // namespace

Status validate(const TensorMap& contribution, const RowSet& expected, const std::vector<ParamSpec>& specs) {
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
      TESSERA_TRY(check_piece(name, found->second, shape));
    }
  }
  for (const auto& [name, tensor] : contribution) {
    if (!known.count(name)) return fail(ExitCode::failed, name, " is not owned by this slot");
  }
  return {};
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

Status Merger::validate(FragmentId fragment, const RowSet& owned, const TensorMap& contribution) const {
  return tessera::validate(contribution, expected(fragment, owned), specs_);
}

/// A merge under way.
struct Merger::Merge {
  std::vector<const MergeInput*> inputs;  ///< in slot order
  std::vector<double> sums;               ///< of the whole fragment: a method sees all of it at once
  std::span<double> rest;                 ///< of sums, still zero
  std::vector<Update> updates;
  MergeOutcome outcome;
};

void Merger::merge_rows(Merge& merge, const ParamSpec& spec, Rows range, TensorMap& theta,
                        TensorMap& state) const {
  const std::string& name = spec.name;
  const std::span<float> values = floats_of(theta, name, spec),
                         before =
                             values.subspan(offset_of(spec, range.begin), offset_of(spec, range.count()));
  const bool from_start =
      spec.role == Role::weight && method_->payload() == Payload::theta_end && !settings_.brings_changes;
  Mean mean(merge.rest.first(before.size()), range);
  merge.rest = merge.rest.subspan(before.size());
  mean.take(spec, merge.inputs, from_start ? std::span<const float>(before) : std::span<const float>(),
            spec.role == Role::weight ? settings_.average_over : 0);
  if (spec.role == Role::buffer) return store_buffer_mean(spec, mean, values);
  const std::vector<std::string> kinds = state_names(name);
  mean.for_each_run([&](Rows rows, std::int32_t contributions) {
    const std::size_t begin = offset_of(spec, rows.begin), count = offset_of(spec, rows.count());
    if (contributions == 0) {
      merge.outcome.uncovered += static_cast<std::int64_t>(count);
      merge.outcome.uncovered_pieces.push_back(piece_name(name, rows, spec.rows()));
      add_rows(merge.outcome.uncovered_rows, name, rows);
      return;
    }
    Update update{.spec = &spec,
                  .rows = rows,
                  .theta = values.subspan(begin, count),
                  .delta = mean.of(spec, rows),
                  .state = {},
                  .owners = contributions,
                  .cut = is_cut(name),
                  .squares = mean.squares_of(rows)};
    for (const std::string& kind : kinds) {
      update.state.push_back(floats_of(state, kind + "/" + name, spec).subspan(begin, count));
    }
    if (settings_.keeps_fast && update.cut) {
      store_fast(update, merge.inputs, floats_of(state, fast_prefix + name, spec).subspan(begin, count));
    }
    merge.outcome.updated += static_cast<std::int64_t>(count);
    merge.updates.push_back(std::move(update));
  });
}

MergeOutcome Merger::merge(FragmentId fragment, Version version, const std::vector<MergeInput>& inputs,
                           TensorMap& theta, TensorMap& state) const {
  const RowSet& rows = fragments_.at(static_cast<std::size_t>(fragment.value));
  Merge merge{.inputs = in_slot_order(inputs),
              .sums = std::vector<double>(static_cast<std::size_t>(elements_in(rows, specs_))),
              .rest = {},
              .updates = {},
              .outcome = {}};
  merge.rest = merge.sums;
  for (const ParamSpec& spec : specs_) {
    const auto ranges = rows.find(spec.name);
    if (ranges == rows.end()) continue;
    for (const Rows& range : ranges->second) merge_rows(merge, spec, range, theta, state);
  }
  merge.outcome.delta_norm = norm_of(merge.updates);
  merge.outcome.outer = method_->apply(version.value, merge.updates);
  return std::move(merge.outcome);
}

}  // namespace tessera
