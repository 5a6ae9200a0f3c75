// Products of matrices in plain memory: the operands as the kernels see them. Torch-free.
#pragma once
#include <cstdint>

namespace tessera {

/// A matrix in memory: element (row, column) is data[row * stride + column], or, where it is transposed,
/// data[column * stride + row].
struct MatrixView {
  const float* data = nullptr;
  std::int64_t stride = 0;
  bool transposed = false;
};

/// Rows of a matrix that lie together, in fp32 or as bf16 bits: one of the two is null.
struct RowRun {
  std::int64_t rows = 0;
  const float* wide = nullptr;
  const std::uint16_t* half = nullptr;
};

/// A matrix whose rows, of `stride` elements, lie in one run after another; transposed as in MatrixView.
struct RunsView {
  const RowRun* runs = nullptr;
  std::int64_t stride = 0;
  bool transposed = false;
};

/// A right operand [inner, columns] repacked into panels, in the layout of one instruction set.
struct Packed {
  const float* data = nullptr;
  std::int64_t inner = 0, columns = 0;
};

/// Where a product goes, and what is added to it. `addend` may be the target itself.
struct Target {
  float* data = nullptr;
  std::int64_t stride = 0;
  const float* addend = nullptr;  ///< a matrix; null: none
  std::int64_t addend_stride = 0;
  const float* bias = nullptr;  ///< one per column; null: none
};

}  // namespace tessera
