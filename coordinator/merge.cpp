#include "coordinator/merge.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <optional>
#include <set>

#include "base/parallel.h"
#include "base/text.h"
#include "coordinator/blend.h"
#include "coordinator/kernels/kernels.h"
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

void store_buffer_mean(const ParamSpec& spec, const SlotMean& mean, std::span<float> theta) {
  mean.for_each_run([&](Rows rows, std::int32_t contributions) {
    if (contributions == 0) return;
    for (std::size_t i = offset_of(spec, rows.begin); i < offset_of(spec, rows.end); ++i) {
      theta[i] = static_cast<float>(mean.mean()[i]);
    }
  });
}

/// What each input holds of a parameter.
std::vector<std::vector<BroughtRows>> brought_of(const ParamSpec& spec,
                                                 const std::vector<const MergeInput*>& inputs) {
  std::vector<std::vector<BroughtRows>> brought;
  for (const MergeInput* input : inputs) {
    auto& rows = brought.emplace_back();
    for_each_piece(input->pieces, spec, [&](Rows piece, std::span<const float> values) {
      rows.push_back({piece, values});
    });
  }
  return brought;
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
  if (merge_kernels().finite(values.data(), values.size())) return {};
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
      fragments_(method_->fragments()) {
  TESSERA_CHECK(!settings_.keeps_fast || method_->payload() == Payload::theta_end,
                ": fast values need contributions that are parameters");
  TESSERA_CHECK(!settings_.keeps_fast || !settings_.brings_changes, ": fast values are not made of changes");
  for (std::size_t i = 0; i < specs_.size(); ++i) index_.emplace(specs_[i].name, i);
  std::set<std::string> seen;
  for (const auto& fragment : fragments_) {
    for (const std::string& name : fragment) {
      TESSERA_CHECK(travels(spec_of(name).role), ": ", name, " is never sent but in a fragment");
      TESSERA_CHECK(seen.insert(name).second, ": ", name, " is in two fragments");
    }
  }
  for (const ParamSpec& spec : specs_) {
    TESSERA_CHECK(!travels(spec.role) || seen.count(spec.name), ": ", spec.name, " is in no fragment");
  }
}

const ParamSpec& Merger::spec_of(const std::string& name) const {
  auto found = index_.find(name);
  TESSERA_CHECK(found != index_.end(), ": no parameter named ", name);
  return specs_[found->second];
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
  for (const std::string& name : fragments_.at(static_cast<std::size_t>(fragment.value))) {
    if (is_cut(name)) values.emplace(name, state.at(fast_prefix + name));
  }
  return values;
}

RowSet Merger::expected(FragmentId fragment, const RowSet& owned) const {
  RowSet rows;
  for (const std::string& name : fragments_.at(static_cast<std::size_t>(fragment.value))) {
    const ParamSpec& spec = spec_of(name);
    if (spec.role == Role::buffer) {
      add_rows(rows, name, {0, spec.rows()});
    } else if (auto found = owned.find(name); found != owned.end()) {
      rows[name] = found->second;
    }
  }
  return rows;
}

Status Merger::validate(FragmentId fragment, const RowSet& owned, const TensorMap& contribution) const {
  return tessera::validate(contribution, expected(fragment, owned), specs_);
}

MergeOutcome Merger::merge(FragmentId fragment, Version version, const std::vector<MergeInput>& inputs,
                           TensorMap& theta, TensorMap& state) const {
  const std::vector<const MergeInput*> ordered = in_slot_order(inputs);
  const std::vector<std::string>& names = fragments_.at(static_cast<std::size_t>(fragment.value));
  std::int64_t elements = 0;
  for (const std::string& name : names) elements += spec_of(name).elements();

  // Of the whole fragment: a method sees all of it at once.
  const Buffer memory = scratch_.take(static_cast<std::size_t>(elements) * sizeof(double));
  std::span<double> rest(reinterpret_cast<double*>(memory.bytes.data()), static_cast<std::size_t>(elements));
  std::deque<SlotMean> means;  // of the names, in their order
  std::vector<std::pair<SlotMean*, std::size_t>> blocks;
  for (const std::string& name : names) {
    const ParamSpec& spec = spec_of(name);
    const std::span<float> values = floats_of(theta, name, spec);
    const bool from_start =
        spec.role == Role::weight && method_->payload() == Payload::theta_end && !settings_.brings_changes;
    SlotMean& mean =
        means.emplace_back(spec, brought_of(spec, ordered), from_start ? values : std::span<const float>(),
                           spec.role == Role::weight ? settings_.average_over : 0, rest.first(values.size()));
    rest = rest.subspan(values.size());
    if (spec.role == Role::weight && method_->weighs()) {
      mean.fill([&](const Blended& into) {
        blend(*method_, spec, ordered, from_start ? values : std::span<const float>(), into);
      });
      continue;
    }
    for (std::size_t block = 0; block < mean.blocks(); ++block) blocks.emplace_back(&mean, block);
  }
  parallel_for(blocks.size(), settings_.threads,
               [&](std::size_t i) { blocks[i].first->take(blocks[i].second); });

  std::vector<Update> updates;
  MergeOutcome outcome;
  double norm_squares = 0;
  for (std::size_t n = 0; n < names.size(); ++n) {
    const std::string& name = names[n];
    const SlotMean& mean = means[n];
    const ParamSpec& spec = spec_of(name);
    const std::span<float> values = floats_of(theta, name, spec);
    if (spec.role == Role::buffer) {
      store_buffer_mean(spec, mean, values);
      continue;
    }
    norm_squares += mean.norm_squares();
    const std::vector<std::string> kinds = state_names(name);
    mean.for_each_run([&](Rows rows, std::int32_t contributions) {
      const std::size_t begin = offset_of(spec, rows.begin), count = offset_of(spec, rows.count());
      if (contributions == 0) {
        outcome.uncovered += static_cast<std::int64_t>(count);
        outcome.uncovered_pieces.push_back(piece_name(name, rows, spec.rows()));
        add_rows(outcome.uncovered_rows, name, rows);
        return;
      }
      Update update{.spec = &spec,
                    .rows = rows,
                    .theta = values.subspan(begin, count),
                    .delta = mean.mean().subspan(begin, count),
                    .state = {},
                    .owners = contributions,
                    .cut = is_cut(name),
                    .squares = mean.squares_of(rows),
                    .threads = settings_.threads};
      for (const std::string& kind : kinds) {
        update.state.push_back(floats_of(state, kind + "/" + name, spec).subspan(begin, count));
      }
      if (settings_.keeps_fast && update.cut) {
        store_fast(update, ordered, floats_of(state, fast_prefix + name, spec).subspan(begin, count));
      }
      outcome.updated += static_cast<std::int64_t>(count);
      updates.push_back(std::move(update));
    });
  }
  outcome.delta_norm = std::sqrt(norm_squares);
  outcome.outer = method_->apply(version.value, updates);
  return outcome;
}

}  // namespace tessera
