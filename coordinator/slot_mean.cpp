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

SlotMean::SlotMean(Rows range, std::size_t width, std::vector<std::vector<BroughtRows>> brought,
                   std::span<const float> start, std::int32_t average_over, std::span<double> mean)
    : first_(range.begin),
      width_(width),
      block_rows_(block_rows(width_)),
      brought_(std::move(brought)),
      start_(start),
      average_over_(average_over),
      mean_(mean),
      owners_(static_cast<std::size_t>(range.count())),
      squares_(owners_.size()),
      norms_((owners_.size() + static_cast<std::size_t>(block_rows_) - 1) /
             static_cast<std::size_t>(block_rows_)) {
  for (std::vector<BroughtRows>& slot : brought_) {
    for (BroughtRows& piece : slot) piece.rows = {piece.rows.begin - first_, piece.rows.end - first_};
  }
}

void SlotMean::take(std::size_t block) {
  const Rows rows = rows_of(block);
  for (const std::vector<BroughtRows>& slot : brought_) {
    for (const BroughtRows& piece : slot) {
      const Rows common{std::max(rows.begin, piece.rows.begin), std::min(rows.end, piece.rows.end)};
      if (common.count() > 0)
        add(common, piece.values.data() + static_cast<std::size_t>(common.begin - piece.rows.begin) * width_);
    }
  }
  divide(rows);
  measure(block);
}

Rows SlotMean::rows_of(std::size_t block) const {
  const std::int64_t begin = static_cast<std::int64_t>(block) * block_rows_;
  return {begin, std::min(begin + block_rows_, static_cast<std::int64_t>(owners_.size()))};
}

void SlotMean::add(Rows rows, const float* values) {
  constexpr std::size_t lanes = MergeKernels::lanes, tile = MergeKernels::tile;
  const MergeKernels& kernels = merge_kernels();
  double square[lanes][tile];
  for (std::int64_t row = rows.begin; row < rows.end; row += lanes) {
    const std::size_t count = std::min<std::size_t>(lanes, static_cast<std::size_t>(rows.end - row));
    double squares[lanes] = {};
    for (std::size_t column = 0; column < width_; column += tile) {
      const std::size_t columns = std::min(tile, width_ - column);
      for (std::size_t r = 0; r < count; ++r) {
        const std::size_t here = static_cast<std::size_t>(row) + r;
        const std::size_t offset = here * width_ + column;
        const std::size_t from = (here - static_cast<std::size_t>(rows.begin)) * width_ + column;
        kernels.add(start_.empty() ? nullptr : start_.data() + offset, values + from, owners_[here] == 0,
                    mean_.data() + offset, square[r], columns);
      }
      kernels.total(square, count, columns, squares);
    }
    for (std::size_t r = 0; r < count; ++r) {
      squares_[static_cast<std::size_t>(row) + r] += squares[r];
      ++owners_[static_cast<std::size_t>(row) + r];
    }
  }
}

void SlotMean::divide(Rows rows) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const std::int32_t owners = owners_[static_cast<std::size_t>(row)];
    if (owners > 0)
      divide_by(average_over_ > 0 ? average_over_ : owners,
                mean_.subspan(static_cast<std::size_t>(row) * width_, width_));
  }
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
  for (std::int64_t row = rows.begin - first_; row < rows.end - first_; ++row)
    total += squares_[static_cast<std::size_t>(row)];
  return total;
}

double SlotMean::norm_squares() const {
  double total = 0;
  for (const double norm : norms_) total += norm;
  return total;
}

}  // namespace tessera
