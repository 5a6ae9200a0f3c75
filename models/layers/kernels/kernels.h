// The kernels of the fast block, one table per instruction set; the best one that this processor has is
// chosen once. Plain memory, fp32, no threads of their own: callers split rows or heads. Torch-free.
#pragma once
#include <cstdint>
#include <vector>

#include "models/layers/kernels/gemm.h"

namespace tessera {

/// Normalisation of rows of `width`: layer norm, or root mean square without a mean.
struct NormForward {
  const float* x = nullptr;
  const float* gain = nullptr;
  const float* bias = nullptr;  ///< null: none
  float* y = nullptr;
  float* statistics = nullptr;  ///< per row: mean (0 for rms), 1 / deviation
  std::int64_t width = 0;
  bool rms = false;
};

/// dx = residual + (gradient through the norm), and sums over the rows, added to what is there; null sums are
/// not taken.
struct NormBackward {
  const float *x = nullptr, *statistics = nullptr, *gain = nullptr, *dy = nullptr;
  const float* residual = nullptr;  ///< null: none
  float* dx = nullptr;              ///< may be dy or residual
  float *gain_sum = nullptr, *bias_sum = nullptr, *dx_sum = nullptr;
  std::int64_t width = 0;
  bool rms = false;
};

/// Positions of rotary angles: cosines and sines [length, size / 2].
struct RotaryAngles {
  const float *cos = nullptr, *sin = nullptr;
};

/// Which elements of rows are set to zero, by the bits that a keyed generator gives for (row, column).
struct DropoutMask {
  std::uint64_t key = 0;
  std::uint32_t threshold = 0;  ///< of 2^32 elements, so many are dropped; 0: no dropout
  float scale = 1;              ///< of what stays: 1 / (1 - rate)

  bool drops() const { return threshold > 0; }
};

/// y = residual + x masked, rows of `width`.
struct DropRows {
  DropoutMask mask;
  const float* x = nullptr;
  const float* residual = nullptr;  ///< null: none
  float* y = nullptr;               ///< may be x
  std::int64_t width = 0;
};

/// Attention of [batch, length] tokens. A row of `qkv` (stride `stride`) holds `heads` query heads, then
/// `groups` key heads, then `groups` value heads, each of `size`; query head h reads group h / (heads /
/// groups). A position attends to those of its sequence that are valid and, if causal, not after it; what
/// comes out at positions beyond the valid ones is zero, and no gradient goes through them.
struct AttentionShape {
  std::int64_t batch = 0, length = 0, heads = 0, groups = 0, size = 0, stride = 0;
  float scale = 1;
  bool causal = true;
  const std::int64_t* lengths = nullptr;  ///< [batch]: valid positions of each sequence; null: all
  DropoutMask dropout{};  ///< of the probabilities: row (sequence heads + head) length + query, column key

  std::int64_t valid(std::int64_t sequence) const { return lengths == nullptr ? length : lengths[sequence]; }
};

struct AttentionForward {
  AttentionShape shape;
  const float* qkv = nullptr;
  float* out = nullptr;         ///< [batch * length, heads * size]
  float* normaliser = nullptr;  ///< [batch, heads, length]: log of the sum of exp(scaled score)
};

struct AttentionBackward {
  AttentionShape shape;
  const float *qkv = nullptr, *out = nullptr, *normaliser = nullptr, *dout = nullptr;
  float* dqkv = nullptr;  ///< like qkv; overwritten
};

/// Products, whose right operand is packed by the same table.
struct ProductKernels {
  std::int64_t panel;  ///< packed columns are rounded up to this
  void (*pack)(MatrixView b, std::int64_t inner, std::int64_t columns, float* out);
  /// Rows [begin, end) of target = a b + addend + bias.
  void (*multiply)(MatrixView a, Packed b, std::int64_t begin, std::int64_t end, Target target);
  /// pack() of a matrix of several runs, and the rounding of `count` floats to bf16 that pack() does; null
  /// where products are fp32.
  void (*pack_runs)(RunsView b, std::int64_t inner, std::int64_t columns, float* out) = nullptr;
  void (*round)(const float* from, std::int64_t count, std::uint16_t* to) = nullptr;
};

struct Kernels {
  const char* level;  ///< "avx512", "avx2", "baseline"
  ProductKernels products;
  void (*norm_forward)(const NormForward& norm, std::int64_t begin, std::int64_t end);
  void (*norm_backward)(const NormBackward& norm, std::int64_t begin, std::int64_t end);
  /// z [count] -> hidden = gelu(z); z becomes gelu'(z).
  void (*gelu)(float* z, float* hidden, std::int64_t count);
  /// hidden = silu(gate) * up; gate and up become d hidden / d gate and d hidden / d up.
  void (*swiglu)(float* gate, float* up, float* hidden, std::int64_t count);
  /// out = a * b, rows of `columns`; `sum`, where not null, gains the sum of the rows.
  void (*scale_rows)(const float* a, const float* b, float* out, float* sum, std::int64_t columns,
                     std::int64_t rows);
  void (*drop)(const DropRows& rows, std::int64_t begin, std::int64_t end);
  /// sum += the rows of x.
  void (*add_rows)(const float* x, std::int64_t stride, float* sum, std::int64_t columns, std::int64_t rows);
  /// Turns `heads` heads of one row in place by the angles of its position, or back.
  void (*rotate)(float* row, std::int64_t heads, std::int64_t size, const float* cos, const float* sin,
                 bool back);
  /// One group of heads of one sequence; `scratch` holds attention_scratch() floats.
  void (*attention_forward)(const AttentionForward& attention, std::int64_t sequence, std::int64_t group,
                            float* scratch);
  void (*attention_backward)(const AttentionBackward& attention, std::int64_t sequence, std::int64_t group,
                             float* scratch);
};

std::int64_t attention_scratch(const AttentionShape& shape);

/// Products with operands rounded to bf16 and sums in fp32; null where the processor has no instructions for
/// them.
const ProductKernels* bf16_products();

/// The best level that the processor and this build have.
const Kernels& kernels();
/// All levels that the processor and this build have, best first.
std::vector<const Kernels*> all_kernels();

}  // namespace tessera
