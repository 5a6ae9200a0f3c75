// The mean over slots of rows of one parameter, in passes over blocks of rows that fit the cache and may run
// side by side: the bits are the same whoever takes which block.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/params.h"
#include "coordinator/blend.h"
#include "optim/outer.h"

namespace tessera {

/// Rows that a slot brings.
struct BroughtRows {
  Rows rows;
  std::span<const float> values;
};

class SlotMean {
 public:
  /// `brought`: by every slot, in slot order, all within `range`. `start`: what differences are formed from,
  /// start - value; empty: the values themselves are averaged. `average_over`: the divisor, 0 for the owners
  /// that brought a row. `mean` is written where there are owners; empty: only what is said of it is kept,
  /// and it is made again by maker_of(). `momentum`: what lies beside the mean and is multiplied with it for
  /// products_of(); may be empty. All are of the range's rows; `spec` and the spans must outlive the object.
  SlotMean(const ParamSpec& spec, Rows range, std::vector<std::vector<BroughtRows>> brought,
           std::span<const float> start, std::int32_t average_over, std::span<double> mean,
           std::span<const float> momentum = {});
  const ParamSpec& spec() const { return spec_; }
  bool is_stored() const { return !mean_.empty(); }

  std::size_t blocks() const { return blocks_in(range_.count()); }
  /// Each block once, from any thread.
  void take(std::size_t block);
  /// Instead of taking blocks, of a mean that is not stored: only counts who brought what. Sums are formed by
  /// the makers, who then make each block once.
  void count_owners();

  /// Instead of taking blocks: another way to make one of many, which is stored. `make(into)` gets zeros.
  template <class Make>
  void fill(Make make) {
    std::ranges::fill(mean_, 0.0);
    make(Blended{mean_, owners_, squares_});
    for (std::size_t row = 0; row < owners_.size(); ++row) {
      if (owners_[row] > 0) multiply(row, 0, mean_.subspan(row * width_, width_));
    }
  }

  // ---- once all blocks are taken
  std::span<double> mean_of(Rows rows) const;
  /// Makes the mean of rows that equally many contributed to, from the same spans. Needs this object.
  std::shared_ptr<const DeltaMaker> maker_of(Rows rows);
  /// Calls visit(rows, m) for the maximal runs of rows that have equally many contributions.
  template <class Visit>
  void for_each_run(Visit visit) const {
    const std::int64_t rows = static_cast<std::int64_t>(owners_.size());
    for (std::int64_t begin = 0, end = 0; begin < rows; begin = end) {
      while (end < rows && owners_[end] == owners_[begin]) ++end;
      visit(Rows{range_.begin + begin, range_.begin + end}, owners_[begin]);
    }
  }
  /// Of all contributions' differences in these rows, squared.
  double squares_of(Rows rows) const;
  DeltaProducts products_of(Rows rows) const;
  /// Whether these are there already, and not only once a maker has made all blocks.
  bool has_sums() const { return !makers_sum_up_; }

 private:
  class Maker;
  // Rows are counted from the range's first.
  struct Part {
    Rows rows;
    const float* values;
  };
  struct Tile {
    Rows rows;
    std::size_t column, columns;
  };
  std::size_t blocks_in(std::int64_t rows) const;
  Rows rows_of(std::size_t block, Rows all) const;
  std::vector<Part> parts_in(Rows rows) const;
  template <class Visit>
  void for_each_tile(Rows rows, Visit visit) const;
  void sum_up(const Tile& tile, const std::vector<Part>& parts, std::span<double> sums, std::size_t stride,
              std::span<std::int32_t> owners, double* squares) const;
  void divide(std::int32_t owners, std::span<double> sums) const;
  void multiply(std::size_t row, std::size_t column, std::span<const double> mean);

  const ParamSpec& spec_;
  Rows range_;
  std::size_t width_;
  std::int64_t tile_rows_, block_rows_;
  std::vector<std::vector<BroughtRows>> brought_;
  std::span<const float> start_;
  std::int32_t average_over_;
  std::span<double> mean_;
  std::span<const float> momentum_;
  std::vector<std::int32_t> owners_;     ///< m per row
  std::vector<double> squares_;          ///< of all contributions' differences, per row
  std::vector<DeltaProducts> products_;  ///< per row that has owners
  bool makers_sum_up_ = false;
};

}  // namespace tessera
