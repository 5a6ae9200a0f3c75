// Memory of a transformer's training step (models/families/gpt.cpp), stage by stage, from shapes alone: on
// the plain path (autograd, one node per product) and on the fast one (fast_block.h, whose buffers come from
// an arena). tests/worker/memory_test.cpp compares both with what the allocator hands out.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "base/cost_model.h"

namespace tessera {

struct TransformerShape {
  std::int64_t width = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0, context = 0;
  bool swiglu = false, rms_norm = false, bias = false, rotary = false, tied = true, dropout = false;
};

/// What both paths share: which part of each parameter is trained, and the embedding.
class TransformerStages {
 public:
  TransformerStages(const TransformerShape& shape, const std::vector<ParamSpec>& specs, const RowSet& owned,
                    double sequences);
  virtual ~TransformerStages() = default;
  virtual std::vector<MemoryStage> all() = 0;

 protected:
  /// Trained elements of a parameter; of several with their biases.
  double trained(const std::string& name) const;
  double trained(const std::string& prefix, std::initializer_list<const char*> names) const;
  double trained_norm(const std::string& name) const;
  std::string head_name() const { return shape_.tied ? "embed.tokens" : "head"; }
  static std::string block_name(std::int64_t layer) { return "blocks." + std::to_string(layer) + "."; }
  MemoryStage embedding() const;

  const TransformerShape& shape_;
  const double tokens_;

 private:
  const RowSet& owned_;
  std::map<std::string, const ParamSpec*> specs_;
};

/// Stages of a step over so many sequences: embedding, attention and MLP of every block, head. Without
/// dropout.
std::vector<MemoryStage> plain_stages(const TransformerShape& shape, const std::vector<ParamSpec>& specs,
                                      const RowSet& owned, double sequences);
/// Embedding, blocks, head, and what the arena reserves, with the scratch memory of one thread.
std::vector<MemoryStage> fast_stages(const TransformerShape& shape, const std::vector<ParamSpec>& specs,
                                     const RowSet& owned, double sequences);

}  // namespace tessera
