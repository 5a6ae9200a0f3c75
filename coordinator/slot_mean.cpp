#include "coordinator/slot_mean.h"

#include <algorithm>
#include <bit>

#include "coordinator/kernels/kernels.h"

namespace tessera {
namespace {

constexpr std::size_t block_elements = 32768;  // 256 KiB of sums
/// Whole groups of lanes, so that few rows are added up alone.
std::int64_t block_rows(std::size_t width) {
  const std::size_t groups = block_elements / std::max<std::size_t>(1, width) / MergeKernels::lanes;
  return static_cast<std::int64_t>(std::max<std::size_t>(1, groups) * MergeKernels::lanes);
}

void divide_by(std::int32_t divisor, std::span<double> values) {
  if (divisor < 2) return;                                         // dividing by one changes nothing
  if (std::has_single_bit(static_cast<std::uint32_t>(divisor))) {  // the same bits, several times as fast
    const double factor = 1.0 / divisor;
    merge_kernels().scale(values.data(), values.size(), factor);
  } else {
    for (double& value : values) value /= divisor;
  }
}

}  // namespace

SlotMean::SlotMean(const ParamSpec& spec, Rows range, std::vector<std::vector<BroughtRows>> brought,
                   std::span<const float> start, std::int32_t average_over, std::span<double> mean)
    : spec_(spec),
      range_(range),
      width_(static_cast<std::size_t>(spec.row_size())),
      block_rows_(block_rows(width_)),
      brought_(std::move(brought)),
      start_(start),
      average_over_(average_over),
      mean_(mean),
      owners_(static_cast<std::size_t>(range.count())),
      squares_(owners_.size()),
      norms_((owners_.size() + static_cast<std::size_t>(block_rows_) - 1) /
             static_cast<std::size_t>(block_rows_)) {}

void SlotMean::take(std::size_t block) {
  constexpr auto lanes = static_cast<std::int64_t>(MergeKernels::lanes);
  const Rows rows = rows_of(block);
  for (std::int64_t row = rows.begin; row < rows.end; row += lanes)
    norms_[block] += take_group({row, std::min(row + lanes, rows.end)});
}

Rows SlotMean::rows_of(std::size_t block) const {
  const std::int64_t begin = static_cast<std::int64_t>(block) * block_rows_;
  return {begin, std::min(begin + block_rows_, range_.count())};
}

/// A few rows, tile by tile: what all slots brought of a tile meets in the cache. Returns the squares of the
/// mean.
double SlotMean::take_group(Rows group) {
  constexpr std::size_t lanes = MergeKernels::lanes, tile = MergeKernels::tile;
  const MergeKernels& kernels = merge_kernels();
  struct Part {
    std::size_t row, rows;  ///< first one, and how many
    const float* values;
    bool first[lanes];  ///< nobody before brought this row
    double squares[lanes];
  };
  std::vector<Part> parts;
  for (const std::vector<BroughtRows>& slot : brought_) {
    for (const BroughtRows& piece : slot) {
      const Rows here{piece.rows.begin - range_.begin, piece.rows.end - range_.begin};
      const Rows common{std::max(group.begin, here.begin), std::min(group.end, here.end)};
      if (common.count() <= 0) continue;
      Part& part = parts.emplace_back();
      part = {.row = static_cast<std::size_t>(common.begin),
              .rows = static_cast<std::size_t>(common.count()),
              .values = piece.values.data() + static_cast<std::size_t>(common.begin - here.begin) * width_,
              .first = {},
              .squares = {}};
      for (std::size_t r = 0; r < part.rows; ++r) part.first[r] = owners_[part.row + r]++ == 0;
    }
  }
  double square[lanes][tile];
  double norm = 0;
  for (std::size_t column = 0; column < width_; column += tile) {
    const std::size_t columns = std::min(tile, width_ - column);
    for (Part& part : parts) {
      for (std::size_t r = 0; r < part.rows; ++r) {
        const std::size_t offset = (part.row + r) * width_ + column;
        kernels.add(start_.empty() ? nullptr : start_.data() + offset, part.values + r * width_ + column,
                    part.first[r], mean_.data() + offset, square[r], columns);
      }
      kernels.total(square, part.rows, columns, part.squares);
    }
    for (auto row = static_cast<std::size_t>(group.begin); row < static_cast<std::size_t>(group.end); ++row) {
      if (owners_[row] == 0) continue;
      const std::span<double> values = mean_.subspan(row * width_ + column, columns);
      divide_by(average_over_ > 0 ? average_over_ : owners_[row], values);
      norm += kernels.norm_squares(values.data(), values.size());
    }
  }
  for (const Part& part : parts) {
    for (std::size_t r = 0; r < part.rows; ++r) squares_[part.row + r] += part.squares[r];
  }
  return norm;
}

void SlotMean::measure(std::size_t block) {
  const Rows rows = rows_of(block);
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    if (owners_[static_cast<std::size_t>(row)] == 0) continue;
    const std::span<double> values = mean_.subspan(static_cast<std::size_t>(row) * width_, width_);
    norms_[block] += merge_kernels().norm_squares(values.data(), values.size());
  }
}

double SlotMean::squares_of(Rows rows) const {
  double total = 0;
  for (std::int64_t row = rows.begin; row < rows.end; ++row)
    total += squares_[static_cast<std::size_t>(row - range_.begin)];
  return total;
}

std::span<double> SlotMean::mean_of(Rows rows) const {
  return mean_.subspan(static_cast<std::size_t>(rows.begin - range_.begin) * width_,
                       static_cast<std::size_t>(rows.count()) * width_);
}

double SlotMean::norm_squares() const {
  double total = 0;
  for (const double norm : norms_) total += norm;
  return total;
}

}  // namespace tessera
