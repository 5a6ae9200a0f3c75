// The mean over slots of rows of one parameter, in passes over blocks of rows that fit the cache and may run
// side by side: the bits are the same whoever takes which block.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/params.h"
#include "coordinator/blend.h"

namespace tessera {

/// Rows of a parameter that a slot brings.
struct BroughtRows {
  Rows rows;
  std::span<const float> values;
};

class SlotMean {
 public:
  /// Of the rows `range`, `width` elements each. `brought`: by every slot, in slot order; what lies outside
  /// of the range does not count. `start`: of the range, what differences are formed from, start - value;
  /// empty: the values themselves are averaged. `average_over`: the divisor, 0 for the owners that brought a
  /// row. `mean`, of the range, is written where there are owners; the spans must outlive the object.
  SlotMean(Rows range, std::size_t width, std::vector<std::vector<BroughtRows>> brought,
           std::span<const float> start, std::int32_t average_over, std::span<double> mean);

  std::size_t blocks() const { return norms_.size(); }
  /// Each block once, from any thread.
  void take(std::size_t block);

  /// Instead of taking blocks: another way to make one of many. `make(into)` gets zeros.
  template <class Make>
  void fill(Make make) {
    std::ranges::fill(mean_, 0.0);
    make(Blended{mean_, owners_, squares_});
    for (std::size_t block = 0; block < blocks(); ++block) measure(block);
  }

  // ---- once all blocks are taken
  /// The mean of some of the rows.
  std::span<double> of(Rows rows) const {
    return mean_.subspan(static_cast<std::size_t>(rows.begin - first_) * width_,
                         static_cast<std::size_t>(rows.count()) * width_);
  }
  /// Calls visit(rows, m) for the maximal runs of rows that have equally many contributions.
  template <class Visit>
  void for_each_run(Visit visit) const {
    const std::int64_t rows = static_cast<std::int64_t>(owners_.size());
    for (std::int64_t begin = 0, end = 0; begin < rows; begin = end) {
      while (end < rows && owners_[end] == owners_[begin]) ++end;
      visit(Rows{first_ + begin, first_ + end}, owners_[begin]);
    }
  }
  /// Of all contributions' differences in these rows, squared.
  double squares_of(Rows rows) const;
  /// Of the mean, squared.
  double norm_squares() const;

 private:
  void add(Rows rows, const float* values);
  Rows rows_of(std::size_t block) const;
  void divide(Rows rows);
  void measure(std::size_t block);

  std::int64_t first_;  ///< of the range; all rows below count from it
  std::size_t width_;
  std::int64_t block_rows_;
  std::vector<std::vector<BroughtRows>> brought_;
  std::span<const float> start_;
  std::int32_t average_over_;
  std::span<double> mean_;
  std::vector<std::int32_t> owners_;  ///< m per row
  std::vector<double> squares_;       ///< of all contributions' differences, per row
  std::vector<double> norms_;         ///< of the mean, squared, per block
};

}  // namespace tessera
