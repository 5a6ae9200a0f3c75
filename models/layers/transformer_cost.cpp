#include "models/layers/transformer_cost.h"

#include <algorithm>

namespace tessera {
namespace {

constexpr double float_bytes = 4;

}  // namespace

TransformerStages::TransformerStages(const TransformerShape& shape, const std::vector<ParamSpec>& specs,
                                     const RowSet& owned, double sequences)
    : shape_(shape), tokens_(sequences * static_cast<double>(shape.context)), owned_(owned) {
  for (const ParamSpec& spec : specs) specs_[spec.name] = &spec;
}

double TransformerStages::trained(const std::string& name) const {
  const auto found = specs_.find(name);
  return found == specs_.end() ? 0 : owned_elements(owned_, *found->second);
}

double TransformerStages::trained(const std::string& prefix, std::initializer_list<const char*> names) const {
  double sum = 0;
  for (const char* name : names) sum += trained(prefix + name) + trained(prefix + name + "_bias");
  return sum;
}

double TransformerStages::trained_norm(const std::string& name) const {
  return trained(name + ".gain") + trained(name + ".bias");
}

MemoryStage TransformerStages::embedding() const {
  const auto width = static_cast<double>(shape_.width), context = static_cast<double>(shape_.context);
  const double table = static_cast<double>(shape_.vocab) * width, tokens = trained("embed.tokens"),
               places = trained("embed.positions");
  MemoryStage stage{.name = "embedding",
                    .forward = float_bytes * tokens_ * (shape_.rotary && !shape_.dropout ? 1 : 2) * width,
                    .backward = float_bytes * tokens_ * width,
                    .gradients = float_bytes * ((shape_.tied ? 0 : tokens) + places)};
  // A table's gradient is dense; a tied one is added to the head's.
  if (tokens > 0 && (shape_.tied || tokens < table)) stage.backward += float_bytes * table;
  if (places > 0) stage.backward += float_bytes * context * width;
  // Gradients of what dropout gave and got.
  if (shape_.dropout) stage.backward = std::max(stage.backward, float_bytes * 2 * tokens_ * width);
  return stage;
}

namespace {

/// Counts floats; the widths are per token.
class PlainStages final : public TransformerStages {
 public:
  PlainStages(const TransformerShape& shape, const std::vector<ParamSpec>& specs, const RowSet& owned,
              double sequences)
      : TransformerStages(shape, specs, owned, sequences),
        s_(shape),
        d_(static_cast<double>(shape.width)),
        queries_(static_cast<double>(shape.heads * shape.head_dim)),
        keys_(static_cast<double>(shape.kv_heads * shape.head_dim)),
        ffn_(static_cast<double>(shape.ffn)),
        context_(static_cast<double>(shape.context)) {}

  std::vector<MemoryStage> all() override {
    std::vector<MemoryStage> stages{embedding()};
    for (std::int64_t layer = 0; layer < s_.layers; ++layer) {
      stages.push_back(attention(block_name(layer)));
      stages.push_back(mlp(block_name(layer)));
    }
    stages.push_back(head());
    return stages;
  }

 private:
  /// What a norm keeps: its input, its statistics, and its output where a product after it wants a weight
  /// gradient.
  double norm(const std::string& name, bool output_is_needed) const {
    const double own = s_.rms_norm ? 1 + (trained(name + ".gain") > 0 ? d_ : 0) : 2;
    return d_ + own + (output_is_needed ? d_ : 0);
  }

  MemoryStage stage(std::string name, double kept, double forward, double backward, double gradients,
                    double kept_per_position = 0) const {
    return {.name = std::move(name),
            .kept = float_bytes * (tokens_ * kept + context_ * kept_per_position),
            .forward = float_bytes * tokens_ * forward,
            .backward = float_bytes * tokens_ * backward,
            .gradients = float_bytes * gradients};
  }

  MemoryStage attention(const std::string& block) const {
    const std::string name = block + "attention";
    const bool repeated = s_.kv_heads != s_.heads;
    const bool products = trained(block, {"attention.q", "attention.k", "attention.v"}) > 0;
    // Queries, keys and values as the kernel sees them (equally many heads), its output, its log-sum-exp.
    const double kept = norm(block + "norm1", products) + 4 * queries_ + static_cast<double>(s_.heads);
    // Rotary: cosines and sines of queries and keys, for all sequences together.
    const double angles = s_.rotary ? 2 * static_cast<double>(s_.head_dim) : 0;
    const double forward = 2 * d_ + (repeated ? 2 * keys_ : 0);
    // The gradient that goes on beside the block, of the kernel's output, of its three inputs.
    const double backward = d_ + 4 * queries_;
    return stage(name, kept, forward, backward,
                 trained(block, {"attention.q", "attention.k", "attention.v", "attention.o"}) +
                     trained_norm(block + "norm1"),
                 angles);
  }

  MemoryStage mlp(const std::string& block) const {
    const bool products = trained(block, {"mlp.up", "mlp.gate"}) > 0;
    const double owned_units = trained(block + "mlp.down") / d_;
    const double inputs = s_.swiglu ? 3 * ffn_ : ffn_;  // gate, its silu and up; or what gelu was given
    const double kept = norm(block + "norm2", products) + inputs + owned_units;
    const double rest = owned_units == ffn_ ? 0 : ffn_;  // the hidden values, when only some columns are kept
    const double forward = std::max(rest, 2 * d_);
    // Beside the gradient that goes on: of the hidden values, then also of what they came from, when the
    // owned hidden values have been given back.
    const double backward = d_ + std::max(ffn_, (s_.swiglu ? 3 : 2) * ffn_ - owned_units);
    return stage(block + "mlp", kept, forward, backward,
                 trained(block, {"mlp.up", "mlp.gate", "mlp.down"}) + trained_norm(block + "norm2"));
  }

  MemoryStage head() const {
    const double logits = static_cast<double>(s_.vocab), weight = trained(head_name());
    return stage("head", norm("final_norm", weight > 0), 0, logits + d_, weight + trained_norm("final_norm"));
  }

  const TransformerShape& s_;
  double d_, queries_, keys_, ffn_, context_;
};

}  // namespace

std::vector<MemoryStage> plain_stages(const TransformerShape& shape, const std::vector<ParamSpec>& specs,
                                      const RowSet& owned, double sequences) {
  return PlainStages(shape, specs, owned, sequences).all();
}

}  // namespace tessera
