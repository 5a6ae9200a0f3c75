// The fast path's memory: goes through a step as fast_block.cpp and fast_head.cpp do, taking and giving back
// buffers of an arena that has no memory. The arena of a real replica ends up with the most that was taken of
// each size.
#include <algorithm>

#include "models/layers/kernels/kernels.h"
#include "models/layers/transformer_cost.h"

namespace tessera {
namespace {

constexpr double float_bytes = 4;

/// Counts buffers by their number of floats.
class CountedArena {
 public:
  void take(double floats) {
    Count& count = sizes_[floats];
    count.most = std::max(count.most, ++count.now);
    taken_ += floats;
  }
  void give(double floats) {
    --sizes_[floats].now;
    taken_ -= floats;
  }
  void pass(double floats) { take(floats), give(floats); }
  double taken() const { return taken_; }
  double reserved() const {
    double floats = 0;
    for (const auto& [size, count] : sizes_) floats += size * count.most;
    return floats;
  }

 private:
  struct Count {
    int now = 0, most = 0;
  };
  std::map<double, Count> sizes_;
  double taken_ = 0;
};

class FastStages final : public TransformerStages {
 public:
  FastStages(const TransformerShape& shape, const std::vector<ParamSpec>& specs, const RowSet& owned,
             double sequences)
      : TransformerStages(shape, specs, owned, sequences),
        d_(static_cast<double>(shape.width)),
        queries_(static_cast<double>(shape.heads * shape.head_dim)),
        keys_(static_cast<double>(shape.kv_heads * shape.head_dim)),
        ffn_(static_cast<double>(shape.ffn)),
        logits_(static_cast<double>(shape.vocab)) {
    const std::int64_t stride = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    scratch_ = static_cast<double>(attention_scratch({.batch = static_cast<std::int64_t>(sequences),
                                                      .length = shape.context,
                                                      .heads = shape.heads,
                                                      .groups = shape.kv_heads,
                                                      .size = shape.head_dim,
                                                      .stride = stride}));
  }

  std::vector<MemoryStage> all() override {
    std::vector<MemoryStage> stages{embedding()};
    for (std::int64_t layer = 0; layer < shape_.layers; ++layer) stages.push_back(block(block_name(layer)));
    stages.push_back(head());
    for (std::int64_t layer = shape_.layers - 1; layer >= 0; --layer) block_backward(block_name(layer));
    stages.front().reserved = float_bytes * arena_.reserved();
    return stages;
  }

 private:
  /// What a block takes for its backward pass.
  struct Kept {
    bool normed1, normed2;
    double hidden;  ///< owned columns
  };
  Kept kept(const std::string& block) const {
    return {
        trained(block + "attention.q") + trained(block + "attention.k") + trained(block + "attention.v") > 0,
        trained(block + "mlp.up") + trained(block + "mlp.gate") > 0, trained(block + "mlp.down") / d_};
  }
  double rows(double width) const { return tokens_ * width; }
  /// A packed right operand.
  static double packed(double inner, double columns) {
    const std::int64_t panel = kernels().products.panel, wide = static_cast<std::int64_t>(columns);
    return (inner + 1) * static_cast<double>((wide + panel - 1) / panel * panel);
  }
  /// Sums over rows: partial ones of every 64, and the whole.
  void sum(double width) {
    const auto runs = static_cast<double>((static_cast<std::int64_t>(tokens_) + 63) / 64);
    arena_.take(width);
    arena_.pass(runs * width);
    arena_.give(width);
  }
  void sum_bias(const std::string& name, double width) {
    if (trained(name + "_bias") > 0) sum(width);
  }

  MemoryStage block(const std::string& name) {
    const double before = arena_.taken();
    block_forward(name);
    return {.name = name,
            .kept = float_bytes * rows(d_),  // its input
            .held = float_bytes * (arena_.taken() - before),
            .backward = float_bytes * 2 * rows(d_),
            .gradients = float_bytes * (trained(name, {"attention.q", "attention.k", "attention.v",
                                                       "attention.o", "mlp.up", "mlp.gate", "mlp.down"}) +
                                        trained_norm(name + "norm1") + trained_norm(name + "norm2"))};
  }

  void block_forward(const std::string& name) {
    const Kept keep = kept(name);
    arena_.take(rows(d_)), arena_.take(rows(2));  // norm and its statistics
    arena_.take(rows(queries_ + 2 * keys_));
    arena_.pass(packed(d_, queries_)), arena_.pass(packed(d_, keys_));
    if (!keep.normed1) arena_.give(rows(d_));
    arena_.take(rows(queries_)), arena_.take(rows(static_cast<double>(shape_.heads)));
    arena_.pass(scratch_);
    arena_.take(rows(d_));  // the residual stream after attention
    arena_.pass(packed(queries_, d_));
    arena_.take(rows(d_)), arena_.take(rows(2));
    arena_.take(rows(ffn_)), arena_.take(rows(ffn_));  // up and hidden
    arena_.pass(packed(d_, ffn_));
    if (shape_.swiglu) arena_.take(rows(ffn_));
    if (!keep.normed2) arena_.give(rows(d_));
    arena_.pass(packed(ffn_, d_));
    if (keep.hidden == ffn_) return;
    if (keep.hidden > 0) arena_.take(rows(keep.hidden));
    arena_.give(rows(ffn_));
  }

  MemoryStage head() {
    const double weight = trained(head_name()), norm = trained_norm("final_norm");
    arena_.take(rows(d_)), arena_.take(rows(2));
    arena_.pass(packed(d_, logits_));
    if (weight == 0) arena_.give(rows(d_));
    const double held = rows(2) + (weight > 0 ? rows(d_) : 0);
    // Backward.
    if (weight > 0) arena_.pass(packed(tokens_, d_));
    arena_.take(rows(d_)), arena_.take(2 * d_);
    arena_.pass(packed(logits_, d_));
    if (norm > 0) sum(2 * d_);
    arena_.give(2 * d_), arena_.give(rows(d_));
    arena_.give(rows(2));
    if (weight > 0) arena_.give(rows(d_));
    return {.name = "head",
            .kept = float_bytes * rows(d_),
            .held = float_bytes * held,
            .backward = float_bytes * (rows(logits_) + rows(d_)),
            .gradients = float_bytes * (weight + norm)};
  }

  void norm_backward(const std::string& name) {
    arena_.take(2 * d_);
    if (trained_norm(name) > 0) sum(2 * d_);
    arena_.give(2 * d_);
  }

  void block_backward(const std::string& name) {
    const Kept keep = kept(name);
    if (shape_.dropout) arena_.take(rows(d_));  // the masked gradient
    sum_bias(name + "mlp.down", d_);
    if (keep.hidden > 0) arena_.pass(packed(tokens_, d_));
    arena_.take(rows(ffn_));
    arena_.pass(packed(d_, ffn_));
    if (keep.normed2) arena_.take(packed(tokens_, d_));
    arena_.take(rows(d_));
    sum_bias(name + "mlp.up", ffn_);
    if (shape_.swiglu) arena_.pass(rows(ffn_));
    arena_.pass(packed(ffn_, d_));
    if (keep.normed2) arena_.give(packed(tokens_, d_));
    arena_.give(rows(ffn_));
    if (shape_.dropout) arena_.give(rows(d_));
    arena_.take(rows(d_));  // of the residual stream after attention
    norm_backward(name + "norm2");
    arena_.give(rows(d_));

    if (shape_.dropout) arena_.take(rows(d_));
    sum_bias(name + "attention.o", d_);
    if (trained(name + "attention.o") > 0) arena_.pass(packed(tokens_, d_));
    arena_.take(rows(queries_)), arena_.take(rows(queries_ + 2 * keys_));
    arena_.pass(packed(d_, queries_)), arena_.pass(scratch_);
    if (keep.normed1) arena_.take(packed(tokens_, d_));
    arena_.take(rows(d_));
    sum_bias(name + "attention.q", queries_), sum_bias(name + "attention.k", keys_);
    arena_.pass(packed(queries_, d_)), arena_.pass(packed(keys_, d_));
    if (keep.normed1) arena_.give(packed(tokens_, d_));
    arena_.give(rows(queries_)), arena_.give(rows(queries_ + 2 * keys_));
    if (shape_.dropout) arena_.give(rows(d_));
    norm_backward(name + "norm1");
    arena_.give(rows(d_)), arena_.give(rows(d_));
    release(keep);
  }

  /// What a block's forward pass has kept goes back.
  void release(const Kept& keep) {
    if (keep.normed1) arena_.give(rows(d_));
    if (keep.normed2) arena_.give(rows(d_));
    arena_.give(rows(2)), arena_.give(rows(2)), arena_.give(rows(queries_ + 2 * keys_));
    arena_.give(rows(queries_)), arena_.give(rows(static_cast<double>(shape_.heads))), arena_.give(rows(d_));
    arena_.give(rows(ffn_));
    if (shape_.swiglu) arena_.give(rows(ffn_));
    if (keep.hidden > 0) arena_.give(rows(keep.hidden));
  }

  double d_, queries_, keys_, ffn_, logits_, scratch_ = 0;
  CountedArena arena_;
};

}  // namespace

std::vector<MemoryStage> fast_stages(const TransformerShape& shape, const std::vector<ParamSpec>& specs,
                                     const RowSet& owned, double sequences) {
  return FastStages(shape, specs, owned, sequences).all();
}

}  // namespace tessera
