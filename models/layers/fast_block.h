// A pre-norm transformer block as one autograd function over reused buffers, fp32 (its products bf16
// where that is asked for) on the CPU: the same maths
// as the layers of plain operators, which stay as reference and for everything else (double precision, second
// derivatives). Weight gradients are computed for owned rows only, and what only gradients of frozen rows
// would need is not kept.
#pragma once
#include <memory>

#include "models/layers/block_options.h"
#include "models/layers/fast_products.h"
#include "models/parameter.h"

namespace tessera {

struct FastBlockShape {
  std::int64_t width = 0, heads = 0, groups = 0, head_size = 0, ffn = 0;
  bool swiglu = false, rms = false;
  Precision precision = Precision::fp32;
};

/// One of everything that a block may have, by the role that a parameter plays in it.
template <class T>
struct PerBlock {
  T norm1_gain{}, norm1_bias{}, q{}, k{}, v{}, q_bias{}, k_bias{}, v_bias{}, o{}, o_bias{};
  T norm2_gain{}, norm2_bias{}, up{}, gate{}, up_bias{}, gate_bias{}, down{}, down_bias{};
};
/// Null: the block has no such parameter.
using FastBlockParameters = PerBlock<const Parameter*>;

/// x [B, T, width] -> [B, T, width]. `cos` and `sin` [at least T, head_size / 2], fp32, are rotary angles;
/// undefined: none. The result can be differentiated once; masks of dropout are made again for that.
at::Tensor fast_block(const at::Tensor& x, const FastBlockShape& shape, const FastBlockParameters& parameters,
                      const at::Tensor& cos, const at::Tensor& sin, const std::shared_ptr<Arena>& arena,
                      const BlockOptions& options = {});

/// logits [B, T, vocab] = norm(x) head^T: the final norm and the output head.
at::Tensor fast_head(const at::Tensor& x, bool rms, Precision precision, const Parameter& gain,
                     const Parameter* bias, const Parameter& head, const std::shared_ptr<Arena>& arena);

}  // namespace tessera
