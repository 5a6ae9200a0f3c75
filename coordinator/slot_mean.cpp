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
                   std::span<const float> start, std::int32_t average_over, std::span<double> mean,
                   std::span<const float> momentum)
    : spec_(spec),
      range_(range),
      width_(static_cast<std::size_t>(spec.row_size())),
      block_rows_(block_rows(width_)),
      brought_(std::move(brought)),
      start_(start),
      average_over_(average_over),
      mean_(mean),
      momentum_(momentum),
      owners_(static_cast<std::size_t>(range.count())),
      squares_(owners_.size()),
      products_(owners_.size()) {}

void SlotMean::take(std::size_t block) {
  constexpr auto lanes = static_cast<std::int64_t>(MergeKernels::lanes);
  const Rows rows = rows_of(block);
  for (std::int64_t row = rows.begin; row < rows.end; row += lanes)
    take_group({row, std::min(row + lanes, rows.end)});
}

Rows SlotMean::rows_of(std::size_t block) const {
  const std::int64_t begin = static_cast<std::int64_t>(block) * block_rows_;
  return {begin, std::min(begin + block_rows_, range_.count())};
}

/// A few rows, tile by tile: what all slots brought of a tile meets in the cache.
void SlotMean::take_group(Rows group) {
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
    for (std::int64_t row = group.begin; row < group.end; ++row) {
      const auto r = static_cast<std::size_t>(row);
      if (owners_[r] == 0) continue;
      divide_by(average_over_ > 0 ? average_over_ : owners_[r], mean_.subspan(r * width_ + column, columns));
      multiply(row, column, columns);
    }
  }
  for (const Part& part : parts) {
    for (std::size_t r = 0; r < part.rows; ++r) squares_[part.row + r] += part.squares[r];
  }
}

void SlotMean::multiply(std::int64_t row, std::size_t column, std::size_t columns) {
  const std::size_t offset = static_cast<std::size_t>(row) * width_ + column;
  double sums[3] = {};
  merge_kernels().products(mean_.data() + offset, momentum_.empty() ? nullptr : momentum_.data() + offset,
                           columns, sums);
  DeltaProducts& products = products_[static_cast<std::size_t>(row)];
  products.squares += sums[0];
  products.with_momentum += sums[1];
  products.momentum_squares += sums[2];
}

void SlotMean::measure(std::size_t block) {
  const Rows rows = rows_of(block);
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    if (owners_[static_cast<std::size_t>(row)] > 0) multiply(row, 0, width_);
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

DeltaProducts SlotMean::products_of(Rows rows) const {
  DeltaProducts total;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const DeltaProducts& products = products_[static_cast<std::size_t>(row - range_.begin)];
    total.squares += products.squares;
    total.with_momentum += products.with_momentum;
    total.momentum_squares += products.momentum_squares;
  }
  return total;
}

}  // namespace tessera
