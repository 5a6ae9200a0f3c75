#include "coordinator/slot_mean.h"

#include <bit>

#include "coordinator/kernels/kernels.h"

namespace tessera {
namespace {

// Of which all that slots brought, and its sums, lie in the nearest cache.
constexpr std::size_t tile_elements = 1024;
constexpr std::int64_t tiles_a_block = 32;

}  // namespace

SlotMean::SlotMean(const ParamSpec& spec, Rows range, std::vector<std::vector<BroughtRows>> brought,
                   std::span<const float> start, std::int32_t average_over, std::span<double> mean,
                   std::span<const float> momentum)
    : spec_(spec),
      range_(range),
      width_(static_cast<std::size_t>(spec.row_size())),
      tile_rows_(static_cast<std::int64_t>(
          std::max<std::size_t>(1, tile_elements / std::max<std::size_t>(1, width_)))),
      block_rows_(tiles_a_block * tile_rows_),
      brought_(std::move(brought)),
      start_(start),
      average_over_(average_over),
      mean_(mean),
      momentum_(momentum),
      owners_(static_cast<std::size_t>(range.count())),
      squares_(owners_.size()),
      products_(owners_.size()) {}

std::size_t SlotMean::blocks_in(std::int64_t rows) const {
  return static_cast<std::size_t>((rows + block_rows_ - 1) / block_rows_);
}

/// Those of `all` that are its block `block`.
Rows SlotMean::rows_of(std::size_t block, Rows all) const {
  const std::int64_t begin = all.begin + static_cast<std::int64_t>(block) * block_rows_;
  return {begin, std::min(begin + block_rows_, all.end)};
}

/// What the slots bring of some rows, in slot order.
std::vector<SlotMean::Part> SlotMean::parts_in(Rows rows) const {
  std::vector<Part> parts;
  for (const std::vector<BroughtRows>& slot : brought_) {
    for (const BroughtRows& piece : slot) {
      const Rows here{piece.rows.begin - range_.begin, piece.rows.end - range_.begin};
      const Rows common{std::max(rows.begin, here.begin), std::min(rows.end, here.end)};
      if (common.count() <= 0) continue;
      parts.push_back(
          {common, piece.values.data() + static_cast<std::size_t>(common.begin - here.begin) * width_});
    }
  }
  return parts;
}

/// Calls visit(tile) for pieces of these rows that are whole rows, or a part of one.
template <class Visit>
void SlotMean::for_each_tile(Rows rows, Visit visit) const {
  for (std::int64_t row = rows.begin; row < rows.end; row += tile_rows_) {
    const Rows some{row, std::min(row + tile_rows_, rows.end)};
    for (std::size_t column = 0; column < width_; column += tile_elements)
      visit(Tile{some, column, std::min(tile_elements, width_ - column)});
  }
}

/// Sums of what was brought of a tile, whose rows lie `stride` apart in `sums`; counts the owners of its
/// rows, and adds to the squares of what they brought, unless that is null.
void SlotMean::sum_up(const Tile& tile, const std::vector<Part>& parts, std::span<double> sums,
                      std::size_t stride, std::span<std::int32_t> owners, double* squares) const {
  std::ranges::fill(owners, 0);
  for (const Part& part : parts) {
    const std::int64_t end = std::min(part.rows.end, tile.rows.end);
    for (std::int64_t row = std::max(part.rows.begin, tile.rows.begin); row < end; ++row) {
      const auto at = static_cast<std::size_t>(row - tile.rows.begin);
      const std::size_t offset = static_cast<std::size_t>(row) * width_ + tile.column;
      const float* const values =
          part.values + static_cast<std::size_t>(row - part.rows.begin) * width_ + tile.column;
      const double brought = merge_kernels().add(start_.empty() ? nullptr : start_.data() + offset, values,
                                                 owners[at]++ == 0, sums.data() + at * stride, tile.columns);
      if (squares != nullptr) squares[at] += brought;
    }
  }
}

void SlotMean::divide(std::int32_t owners, std::span<double> sums) const {
  const std::int32_t divisor = average_over_ > 0 ? average_over_ : owners;
  if (divisor < 2) return;                                         // dividing by one changes nothing
  if (std::has_single_bit(static_cast<std::uint32_t>(divisor))) {  // the same bits, several times as fast
    merge_kernels().scale(sums.data(), sums.size(), 1.0 / divisor);
  } else {
    for (double& sum : sums) sum /= divisor;
  }
}

void SlotMean::multiply(std::size_t row, std::size_t column, std::span<const double> mean) {
  std::span<const float> momentum;
  if (!momentum_.empty()) momentum = momentum_.subspan(row * width_ + column, mean.size());
  products_[row] += tessera::products_of(mean, momentum);
}

void SlotMean::take(std::size_t block) {
  const Rows rows = rows_of(block, {0, range_.count()});
  const std::vector<Part> parts = parts_in(rows);
  std::vector<double> elsewhere(is_stored() ? 0 : tile_elements);
  for_each_tile(rows, [&](const Tile& tile) {
    const auto first = static_cast<std::size_t>(tile.rows.begin);
    const std::span<std::int32_t> owners =
        std::span(owners_).subspan(first, static_cast<std::size_t>(tile.rows.count()));
    const std::size_t stride = is_stored() ? width_ : tile.columns;
    const std::span<double> sums = is_stored() ? mean_.subspan(first * width_ + tile.column) : elsewhere;
    sum_up(tile, parts, sums, stride, owners, squares_.data() + first);
    for (std::size_t at = 0; at < owners.size(); ++at) {
      if (owners[at] == 0) continue;
      const std::span<double> row = sums.subspan(at * stride, tile.columns);
      divide(owners[at], row);
      multiply(first + at, tile.column, row);
    }
  });
}

void SlotMean::count_owners() {
  TESSERA_CHECK(!is_stored());
  makers_sum_up_ = true;
  for (const std::vector<BroughtRows>& slot : brought_) {
    for (const BroughtRows& piece : slot) {
      for (std::int64_t row = piece.rows.begin; row < piece.rows.end; ++row)
        ++owners_[static_cast<std::size_t>(row - range_.begin)];
    }
  }
}

class SlotMean::Maker final : public DeltaMaker {
 public:
  Maker(SlotMean& mean, Rows rows) : mean_(mean), rows_(rows) {}
  std::size_t blocks() const override { return mean_.blocks_in(rows_.count()); }
  void make(std::size_t block, const Use& use) const override {
    const Rows rows = mean_.rows_of(block, rows_);
    const std::vector<Part> parts = mean_.parts_in(rows);
    std::vector<double> sums(tile_elements);
    std::vector<std::int32_t> owners;
    mean_.for_each_tile(rows, [&](const Tile& tile) {
      const auto first = static_cast<std::size_t>(tile.rows.begin);
      owners.resize(static_cast<std::size_t>(tile.rows.count()));
      double* const squares = mean_.makers_sum_up_ ? mean_.squares_.data() + first : nullptr;
      mean_.sum_up(tile, parts, sums, tile.columns, owners, squares);
      const std::span<double> delta = std::span(sums).first(owners.size() * tile.columns);
      mean_.divide(owners[0], delta);
      if (mean_.makers_sum_up_) {
        for (std::size_t at = 0; at < owners.size(); ++at)
          mean_.multiply(first + at, tile.column, delta.subspan(at * tile.columns, tile.columns));
      }
      use(static_cast<std::size_t>(tile.rows.begin - rows_.begin) * mean_.width_ + tile.column, delta);
    });
  }
  DeltaProducts products() const override { return mean_.products_of(of_parameter()); }
  double squares() const override { return mean_.squares_of(of_parameter()); }

 private:
  Rows of_parameter() const { return {rows_.begin + mean_.range_.begin, rows_.end + mean_.range_.begin}; }

  SlotMean& mean_;
  Rows rows_;  ///< counted from the range's first
};

std::shared_ptr<const DeltaMaker> SlotMean::maker_of(Rows rows) {
  return std::make_shared<Maker>(*this, Rows{rows.begin - range_.begin, rows.end - range_.begin});
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
  for (std::int64_t row = rows.begin; row < rows.end; ++row)
    total += products_[static_cast<std::size_t>(row - range_.begin)];
  return total;
}

}  // namespace tessera
