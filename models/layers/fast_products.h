// What the fast layers are made of: products and passes over rows, shared out over LibTorch's threads, with
// the products counted (flop_count.h). Results do not depend on the number of threads.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/layers/arena.h"
#include "models/layers/flop_count.h"
#include "models/layers/kernels/kernels.h"

namespace tessera {

/// "avx512", "avx2" or "baseline": the instruction set that the fast layers use here.
std::string fast_kernel_level();

/// In which the operands of products are rounded; sums, and all that is not a product, stay fp32.
enum class Precision : std::uint8_t { fp32, bf16 };
/// Why this processor does not compute in a precision; empty: it does.
std::string why_not(Precision precision);
/// Rounds floats to the bf16 numbers that products in bf16 would take for them.
void round_to_bf16(const float* from, std::int64_t count, void* to);

/// A weight [units, width] as the right operand of products: its rows in runs, in fp32 or bf16.
struct WeightMatrix {
  std::vector<RowRun> runs;
  std::int64_t width = 0;
  std::int64_t units() const;
  /// The values, where all of them lie together in fp32; else null.
  const float* together() const { return runs.size() == 1 ? runs[0].wide : nullptr; }
};
enum class Through : std::uint8_t {
  out,  ///< x W^T: from the width to the units
  in,   ///< z W: from the units to the width
};

/// A packed right operand and its memory.
struct Panels {
  Packed packed;
  ArenaBuffer memory;
};

class FastProducts {
 public:
  FastProducts(Precision precision, std::shared_ptr<Arena> arena);

  const Kernels& kernels() const { return kernels_; }
  ArenaBuffer take(std::int64_t elements) const { return arena_->take(elements); }

  Panels pack(MatrixView right, std::int64_t inner, std::int64_t columns) const;
  Panels pack(const WeightMatrix& weight, Through through) const;
  /// target [rows, columns] = left right + addend + bias.
  void multiply(FlopKind kind, MatrixView left, std::int64_t rows, const Panels& right, Target target) const;
  void multiply(FlopKind kind, MatrixView left, std::int64_t rows, MatrixView right, std::int64_t inner,
                std::int64_t columns, Target target) const {
    multiply(kind, left, rows, pack(right, inner, columns), target);
  }
  void multiply(FlopKind kind, MatrixView left, std::int64_t rows, const WeightMatrix& weight,
                Through through, Target target) const {
    multiply(kind, left, rows, pack(weight, through), target);
  }
  /// `rows` rows masked.
  void drop(const DropRows& drop, std::int64_t rows) const;
  void attention(const AttentionForward& attention) const;
  void attention(const AttentionBackward& attention) const;

  /// pass(begin, end) over rows of about `width` elements.
  using Pass = std::function<void(std::int64_t begin, std::int64_t end)>;
  void over_rows(std::int64_t rows, std::int64_t width, const Pass& pass) const;
  /// The same for passes that add sums of rows to `sums` (of `width` in all): partial sums of fixed runs of
  /// rows are added in order. `sums` starts from zero; null: no sums are wanted.
  using SumPass = std::function<void(std::int64_t begin, std::int64_t end, float* sums)>;
  void over_rows(std::int64_t rows, std::int64_t width, float* sums, std::int64_t sum_width,
                 const SumPass& pass) const;

 private:
  std::int64_t packed_elements(std::int64_t inner, std::int64_t columns) const;
  template <class Each>
  void over_heads(const AttentionShape& shape, Each each) const;

  const Kernels& kernels_ = tessera::kernels();
  const ProductKernels& products_;
  std::shared_ptr<Arena> arena_;
};

}  // namespace tessera
