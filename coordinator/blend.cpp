#include "coordinator/blend.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "coordinator/merge.h"

namespace tessera {
namespace {

/// Rows that one input holds of a range, counted from its first.
struct Held {
  Rows rows;
  std::span<const float> values;
  Influence influence;
};

std::vector<Held> held_of(const ParamSpec& spec, Rows range, const std::vector<const MergeInput*>& inputs,
                          const OuterMethod& method) {
  std::vector<Held> held;
  for (const MergeInput* input : inputs) {
    const Influence influence = method.influence(input->brought);
    for (auto at = input->pieces.lower_bound(spec.name);
         at != input->pieces.end() && at->first.starts_with(spec.name); ++at) {
      const PieceRows piece = rows_of_piece(at->first, spec.rows());
      if (piece.param != spec.name || piece.rows.begin < range.begin || range.end < piece.rows.end) continue;
      held.push_back({{piece.rows.begin - range.begin, piece.rows.end - range.begin},
                      at->second.as<float>(),
                      influence});
    }
  }
  return held;
}

/// The change of some rows, as one contribution has it.
class Change {
 public:
  Change(const Held& held, Rows rows, std::int64_t width, std::span<const float> start)
      : weight(held.influence.weight),
        scale_(held.influence.scale),
        values_(held.values.subspan(static_cast<std::size_t>((rows.begin - held.rows.begin) * width),
                                    static_cast<std::size_t>(rows.count() * width))),
        start_(start) {}
  double operator[](std::size_t i) const {
    const double value = static_cast<double>(values_[i]);
    return scale_ * (start_.empty() ? value : static_cast<double>(start_[i]) - value);
  }

  double weight;

 private:
  double scale_;
  std::span<const float> values_, start_;
};

double norm_of(std::span<const double> values) {
  double squares = 0;
  for (double value : values) squares += value * value;
  return std::sqrt(squares);
}

void blend_rows(Blend how, std::vector<Change> changes, Rows rows, std::size_t width, const Blended& into) {
  const auto first = static_cast<std::size_t>(rows.begin);
  const auto count = static_cast<std::size_t>(rows.count());
  double weights = 0;
  for (const Change& change : changes) weights += change.weight;
  if (weights == 0) {
    for (Change& change : changes) change.weight = 1;
    weights = static_cast<double>(changes.size());
  }
  const std::span<double> sum = into.change.subspan(first * width, count * width);
  double length = 0;
  for (const Change& change : changes) {
    double squares = 0;
    for (std::size_t row = 0; row < count; ++row) {
      double of_row = 0;
      for (std::size_t i = row * width; i < (row + 1) * width; ++i) of_row += change[i] * change[i];
      into.squares[first + row] += of_row;
      into.owners[first + row] += 1;
      squares += of_row;
    }
    const double norm = std::sqrt(squares), share = change.weight / weights;
    length += share * norm;
    if (how == Blend::radial && norm == 0) continue;  // it has no direction
    const double factor = how == Blend::radial ? share / norm : share;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += factor * change[i];
  }
  if (how != Blend::radial) return;
  const double direction = norm_of(sum);
  for (double& value : sum) value = direction > 0 ? value * (length / direction) : 0;
}

}  // namespace

void blend(const OuterMethod& method, const ParamSpec& spec, Rows range,
           const std::vector<const MergeInput*>& inputs, std::span<const float> start, const Blended& into) {
  const std::vector<Held> held = held_of(spec, range, inputs, method);
  std::set<std::int64_t> bounds;  // between which the same contributions hold all rows
  for (const Held& part : held) bounds.insert({part.rows.begin, part.rows.end});
  const auto width = static_cast<std::size_t>(spec.row_size());
  for (auto bound = bounds.begin(); bound != bounds.end() && std::next(bound) != bounds.end(); ++bound) {
    const Rows rows{*bound, *std::next(bound)};
    const std::span<const float> from = start.empty()
                                            ? start
                                            : start.subspan(static_cast<std::size_t>(rows.begin) * width,
                                                            static_cast<std::size_t>(rows.count()) * width);
    std::vector<Change> changes;
    for (const Held& part : held) {
      if (part.rows.begin <= rows.begin && rows.end <= part.rows.end)
        changes.emplace_back(part, rows, spec.row_size(), from);
    }
    if (!changes.empty()) blend_rows(method.blend(spec), std::move(changes), rows, width, into);
  }
}

}  // namespace tessera
