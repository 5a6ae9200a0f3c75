#include "coordinator/slot_mean.h"

#include <algorithm>
#include <bit>

namespace tessera {
namespace {

constexpr std::size_t block_elements = 32768;  // 256 KiB of sums
constexpr std::size_t lanes = 8;               // rows whose squares are added up side by side
constexpr std::size_t tile = 256;              // columns at once

/// sum (+)= start - value, or value; the difference itself goes to `delta`.
void add_row(const float* start, const float* value, bool first, double* sum, double* delta,
             std::size_t count) {
  if (start == nullptr) {
    for (std::size_t i = 0; i < count; ++i) delta[i] = static_cast<double>(value[i]);
  } else {
    for (std::size_t i = 0; i < count; ++i)
      delta[i] = static_cast<double>(start[i]) - static_cast<double>(value[i]);
  }
  if (first) {
    for (std::size_t i = 0; i < count; ++i) sum[i] = 0.0 + delta[i];
  } else {
    for (std::size_t i = 0; i < count; ++i) sum[i] += delta[i];
  }
}

/// squares[r] += delta[r][0]^2, + delta[r][1]^2, ... in this order. Each row's sum waits for itself at every
/// addition, so several are on their way at once.
void add_squares(const double (&delta)[lanes][tile], std::size_t rows, std::size_t count, double* squares) {
  if (rows == lanes) {
    double sums[lanes];
    std::copy_n(squares, lanes, sums);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t r = 0; r < lanes; ++r) sums[r] += delta[r][i] * delta[r][i];
    }
    std::copy_n(sums, lanes, squares);
    return;
  }
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t i = 0; i < count; ++i) squares[r] += delta[r][i] * delta[r][i];
  }
}

double sum_of_squares(std::span<const double> values) {
  double sums[4] = {};
  std::size_t i = 0;
  for (; i + 4 <= values.size(); i += 4) {
    for (std::size_t k = 0; k < 4; ++k) sums[k] += values[i + k] * values[i + k];
  }
  for (; i < values.size(); ++i) sums[0] += values[i] * values[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

void divide_by(std::int32_t divisor, std::span<double> values) {
  if (divisor < 2) return;  // dividing by one changes nothing
  if (std::has_single_bit(static_cast<std::uint32_t>(divisor))) {  // the same bits, several times as fast
    const double factor = 1.0 / divisor;
    for (double& value : values) value *= factor;
  } else {
    for (double& value : values) value /= divisor;
  }
}

}  // namespace

SlotMean::SlotMean(const ParamSpec& spec, std::vector<std::vector<BroughtRows>> brought,
                   std::span<const float> start, std::int32_t average_over, std::span<double> mean)
    : spec_(spec),
      width_(static_cast<std::size_t>(spec.row_size())),
      block_rows_(std::max<std::int64_t>(
          1, static_cast<std::int64_t>(block_elements / std::max<std::size_t>(1, width_)))),
      brought_(std::move(brought)),
      start_(start),
      average_over_(average_over),
      mean_(mean),
      owners_(static_cast<std::size_t>(spec.rows())),
      squares_(owners_.size()),
      norms_((owners_.size() + static_cast<std::size_t>(block_rows_) - 1) /
             static_cast<std::size_t>(block_rows_)) {}

void SlotMean::take(std::size_t block) {
  const std::int64_t begin = static_cast<std::int64_t>(block) * block_rows_;
  const Rows rows{begin, std::min(begin + block_rows_, spec_.rows())};
  for (const std::vector<BroughtRows>& slot : brought_) {
    for (const BroughtRows& piece : slot) {
      const Rows common{std::max(rows.begin, piece.rows.begin), std::min(rows.end, piece.rows.end)};
      if (common.count() > 0)
        add(common,
            piece.values.data() + static_cast<std::size_t>(common.begin - piece.rows.begin) * width_);
    }
  }
  divide(rows, block);
}

void SlotMean::add(Rows rows, const float* values) {
  double delta[lanes][tile];
  for (std::int64_t row = rows.begin; row < rows.end; row += lanes) {
    const std::size_t count = std::min<std::size_t>(lanes, static_cast<std::size_t>(rows.end - row));
    double squares[lanes] = {};
    for (std::size_t column = 0; column < width_; column += tile) {
      const std::size_t columns = std::min(tile, width_ - column);
      for (std::size_t r = 0; r < count; ++r) {
        const std::size_t here = static_cast<std::size_t>(row) + r;
        const std::size_t offset = here * width_ + column;
        const std::size_t from = (here - static_cast<std::size_t>(rows.begin)) * width_ + column;
        add_row(start_.empty() ? nullptr : start_.data() + offset, values + from, owners_[here] == 0,
                mean_.data() + offset, delta[r], columns);
      }
      add_squares(delta, count, columns, squares);
    }
    for (std::size_t r = 0; r < count; ++r) {
      squares_[static_cast<std::size_t>(row) + r] += squares[r];
      ++owners_[static_cast<std::size_t>(row) + r];
    }
  }
}

void SlotMean::divide(Rows rows, std::size_t block) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const std::int32_t owners = owners_[static_cast<std::size_t>(row)];
    if (owners == 0) continue;
    const std::span<double> values = mean_.subspan(static_cast<std::size_t>(row) * width_, width_);
    divide_by(average_over_ > 0 ? average_over_ : owners, values);
    norms_[block] += sum_of_squares(values);
  }
}

double SlotMean::squares_of(Rows rows) const {
  double total = 0;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) total += squares_[static_cast<std::size_t>(row)];
  return total;
}

double SlotMean::norm_squares() const {
  double total = 0;
  for (const double norm : norms_) total += norm;
  return total;
}

}  // namespace tessera
