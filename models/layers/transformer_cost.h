// Memory of a transformer's training step on the plain path (autograd, one node per product), stage by stage:
// which tensors each stretch of models/families/gpt.cpp keeps for its backward pass. Torch-free arithmetic on
// shapes; tests/worker/memory_test.cpp compares it with what the allocator hands out.
#pragma once
#include <cstdint>
#include <vector>

#include "base/cost_model.h"

namespace tessera {

struct TransformerShape {
  std::int64_t width = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0, context = 0;
  bool swiglu = false, rms_norm = false, bias = false, rotary = false, tied = true;
};

/// Stages of a step over so many sequences: embedding, attention and MLP of every block, head.
std::vector<MemoryStage> plain_stages(const TransformerShape& shape, const std::vector<ParamSpec>& specs,
                                      const RowSet& owned, double sequences);

}  // namespace tessera
