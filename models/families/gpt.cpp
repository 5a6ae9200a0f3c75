// Pre-norm decoder-only transformer: learned or rotary positions, GELU or SwiGLU, layer norm or RMS norm,
// grouped key/value heads, tied or own output head. Residual projections start smaller by 1/sqrt(2 layers)
// (GPT-2).
#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/random.h"
#include "models/batch_names.h"
#include "models/family.h"
#include "models/gpt_settings.h"
#include "models/layers/adapter.h"
#include "models/layers/attention.h"
#include "models/layers/dropout.h"
#include "models/layers/fast_block.h"
#include "models/layers/initial.h"
#include "models/layers/norm.h"
#include "models/layers/sliced_linear.h"
#include "models/layers/transformer_cost.h"

namespace tessera {
namespace {

class Gpt final : public Family {
 public:
  Gpt(const GptSettings& settings, const Context& context)
      : s_(settings), predicts_next_(context.predicts_next) {
    if (s_.vocab == 0) s_.vocab = context.vocab;
    if (s_.kv_heads == 0) s_.kv_heads = s_.heads;
    if (s_.ffn == 0) s_.ffn = swiglu() ? (8 * s_.width / 3 + 7) / 8 * 8 : 4 * s_.width;
    head_dim_ = s_.width / s_.heads;
    if (s_.positions == "rotary") rotary_.emplace(s_.context, head_dim_);
    declare();
  }

  std::vector<std::string> problems() const override {
    if (causal() || !predicts_next_) return {};
    return {
        "model.attention_mask = \"none\" shows every position the token that it has to predict; set "
        "model.attention_mask = \"causal\""};
  }
  std::vector<ParamSpec> specs() const override { return specs_; }
  std::vector<CutGroup> cuts() const override;
  CostModel cost() const override;
  FrozenRows frozen_rows() const override {
    return s_.compute_precision() == Precision::bf16 ? FrozenRows::bf16 : FrozenRows::fp32;
  }
  bool scales_loss() const override { return s_.precision == "fp16"; }
  void initialize(ParamStore& params, std::uint64_t seed) const override;
  NamedTensors forward(const ParamStore& params, const NamedTensors& batch) const override;
  NamedTensors example_batch(std::uint64_t seed) const override;

 private:
  bool causal() const { return s_.attention_mask == "causal"; }
  bool swiglu() const { return s_.activation == "swiglu"; }
  static std::string block(std::int64_t layer) { return "blocks." + std::to_string(layer) + "."; }
  void declare();
  void declare_matrix(const std::string& name, std::int64_t units, std::int64_t bias_size);
  void declare_norm(const std::string& name);
  bool adapts(const std::string& name) const;
  Adapter adapter(const ParamStore& params, const std::string& name) const;

  at::Tensor norm(const ParamStore& params, const std::string& name, const at::Tensor& x) const;
  at::Tensor out(const ParamStore& params, const std::string& name, const at::Tensor& x) const;
  at::Tensor in(const ParamStore& params, const std::string& name, const at::Tensor& z,
                Input input = Input::of_this) const;
  at::Tensor attention(const ParamStore& params, const std::string& prefix, const at::Tensor& x,
                       const BlockOptions& options) const;
  at::Tensor mlp(const ParamStore& params, const std::string& prefix, const at::Tensor& x) const;
  /// True if the hand-written block can stand in for the layers.
  bool fast(const ParamStore& params) const;
  at::Tensor fast_layer(const ParamStore& params, const std::string& prefix, const at::Tensor& x,
                        const BlockOptions& options) const;
  at::Tensor layer(const ParamStore& params, const std::string& prefix, const at::Tensor& x,
                   const BlockOptions& options) const;
  /// Masks and dropout of a batch; the dropout is the whole step's.
  BlockOptions options(const NamedTensors& batch) const;

  GptSettings s_;
  bool predicts_next_;
  std::int64_t head_dim_ = 0;
  std::optional<Rotary> rotary_;
  std::vector<ParamSpec> specs_;
};

// ---- parameters ----

/// A weight [units, width], and its bias where the settings ask for one. The bias of a product back to the
/// width is shared by all units.
void Gpt::declare_matrix(const std::string& name, std::int64_t units, std::int64_t bias_size) {
  specs_.push_back({.name = name, .shape = {units, s_.width}, .products = 1});
  if (adapts(name)) {
    specs_.push_back(
        {.name = name + "_adapter_a", .shape = {s_.adapter_rank, s_.width}, .group = "ends", .products = 1});
    specs_.push_back(
        {.name = name + "_adapter_b", .shape = {units, s_.adapter_rank}, .group = "ends", .products = 1});
  }
  if (s_.bias) specs_.push_back({.name = name + "_bias", .shape = {bias_size}, .decay = false});
}

/// Whether this matrix has a low-rank adapter.
bool Gpt::adapts(const std::string& name) const {
  const bool is_mlp = name.find(".mlp.") != std::string::npos;
  return s_.adapter_rank > 0 && s_.adapter_targets.find(is_mlp ? "mlp" : "heads") != std::string::npos;
}

Adapter Gpt::adapter(const ParamStore& params, const std::string& name) const {
  const double rank = static_cast<double>(s_.adapter_rank);
  return {params[name + "_adapter_a"], params[name + "_adapter_b"],
          s_.adapter_alpha > 0 ? s_.adapter_alpha / rank : 1};
}

void Gpt::declare_norm(const std::string& name) {
  specs_.push_back({.name = name + ".gain", .shape = {s_.width}, .decay = false});
  if (s_.bias && s_.norm == "layernorm") {
    specs_.push_back({.name = name + ".bias", .shape = {s_.width}, .decay = false});
  }
}

void Gpt::declare() {
  const std::int64_t keys = s_.kv_heads * head_dim_;
  specs_.push_back({.name = "embed.tokens",
                    .shape = {s_.vocab, s_.width},
                    .group = "ends",
                    .products = s_.tied ? 1.0 : 0.0});
  if (!rotary_)
    specs_.push_back({.name = "embed.positions", .shape = {s_.context, s_.width}, .group = "ends"});
  for (std::int64_t layer = 0; layer < s_.layers; ++layer) {
    const std::string b = block(layer);
    declare_norm(b + "norm1");
    declare_matrix(b + "attention.q", s_.width, s_.width);
    declare_matrix(b + "attention.k", keys, keys);
    declare_matrix(b + "attention.v", keys, keys);
    declare_matrix(b + "attention.o", s_.width, s_.width);
    declare_norm(b + "norm2");
    declare_matrix(b + "mlp.up", s_.ffn, s_.ffn);
    if (swiglu()) declare_matrix(b + "mlp.gate", s_.ffn, s_.ffn);
    declare_matrix(b + "mlp.down", s_.ffn, s_.width);
  }
  declare_norm("final_norm");
  if (!s_.tied)
    specs_.push_back({.name = "head", .shape = {s_.vocab, s_.width}, .group = "ends", .products = 1});
}

std::vector<CutGroup> Gpt::cuts() const {
  std::vector<CutGroup> groups;
  const std::int64_t queries = s_.heads / s_.kv_heads * head_dim_;
  for (std::int64_t layer = 0; layer < s_.layers; ++layer) {
    const std::string b = block(layer);
    CutGroup mlp{.name = b + "mlp", .kind = "mlp", .unit = "units", .units = s_.ffn, .members = {}};
    CutGroup heads{
        .name = b + "attention", .kind = "heads", .unit = "groups", .units = s_.kv_heads, .members = {}};
    const auto add = [this](CutGroup& group, const std::string& name, std::int64_t rows, bool with_bias) {
      group.members.push_back({.param = name, .rows_per_unit = rows});
      if (adapts(name)) group.members.push_back({.param = name + "_adapter_b", .rows_per_unit = rows});
      if (with_bias && s_.bias) group.members.push_back({.param = name + "_bias", .rows_per_unit = rows});
    };
    add(mlp, b + "mlp.up", 1, true);
    if (swiglu()) add(mlp, b + "mlp.gate", 1, true);
    add(mlp, b + "mlp.down", 1, false);
    add(heads, b + "attention.q", queries, true);
    add(heads, b + "attention.k", head_dim_, true);
    add(heads, b + "attention.v", head_dim_, true);
    add(heads, b + "attention.o", queries, false);
    groups.push_back(std::move(mlp));
    groups.push_back(std::move(heads));
  }
  CutGroup blocks{.name = "blocks", .kind = "layer", .unit = "layers", .units = s_.layers, .members = {}};
  for (const ParamSpec& spec : specs_) {
    if (!spec.name.starts_with("blocks.")) continue;
    const std::int64_t layer = std::stoll(spec.name.substr(std::string_view("blocks.").size()));
    blocks.members.push_back({.param = spec.name, .rows_per_unit = spec.rows(), .only_unit = layer});
  }
  groups.push_back(std::move(blocks));
  return groups;
}

CostModel Gpt::cost() const {
  const TransformerShape shape{.width = s_.width,
                               .layers = s_.layers,
                               .heads = s_.heads,
                               .kv_heads = s_.kv_heads,
                               .head_dim = head_dim_,
                               .ffn = s_.ffn,
                               .vocab = s_.vocab,
                               .context = s_.context,
                               .swiglu = swiglu(),
                               .rms_norm = s_.norm == "rmsnorm",
                               .bias = s_.bias,
                               .rotary = rotary_.has_value(),
                               .tied = s_.tied,
                               .dropout = s_.dropout > 0};
  CostModel cost{
      .attention_width = static_cast<double>((causal() ? 1 : 2) * s_.layers * s_.heads * head_dim_),
      .context = s_.context,
      .outputs = static_cast<double>(s_.vocab),
      .frozen_bytes = frozen_rows() == FrozenRows::bf16 ? 2.0 : 4.0,
      .stages = [shape, specs = specs_, path = s_.block == "fast" ? fast_stages : plain_stages](
                    const RowSet& owned, double sequences) { return path(shape, specs, owned, sequences); }};
  // What adapters, rounded operands and the plain block's dropout keep for the backward pass is not modelled.
  const bool plain_dropout = s_.dropout > 0 && s_.block == "plain";
  if (s_.adapter_rank > 0 || scales_loss() || plain_dropout) cost.stages = nullptr;
  return cost;
}

void Gpt::initialize(ParamStore& params, std::uint64_t seed) const {
  constexpr double deviation = 0.02;
  const double residual = deviation / std::sqrt(2.0 * static_cast<double>(s_.layers));
  for (auto& [name, parameter] : params.all()) {
    const auto ends_with = [&name](const char* end) { return name.ends_with(end); };
    if (ends_with(".gain")) {
      fill_constant(parameter, 1);
    } else if (ends_with("_adapter_a")) {
      fill_normal(parameter, 1 / std::sqrt(static_cast<double>(s_.width)), seed);
    } else if (ends_with("_bias") || ends_with(".bias") || ends_with("_adapter_b")) {
      fill_constant(parameter, 0);
    } else {
      fill_normal(parameter, ends_with("attention.o") || ends_with("mlp.down") ? residual : deviation, seed);
    }
  }
}

// ---- forward ----

at::Tensor Gpt::norm(const ParamStore& params, const std::string& name, const at::Tensor& x) const {
  if (s_.norm == "rmsnorm") return rms_norm(x, params[name + ".gain"]);
  return layer_norm(x, params[name + ".gain"], s_.bias ? &params[name + ".bias"] : nullptr);
}

at::Tensor Gpt::out(const ParamStore& params, const std::string& name, const at::Tensor& x) const {
  const auto product = [&] {
    if (scales_loss()) return half_out(x, params[name]);
    return adapts(name) ? adapted_out(x, params[name], adapter(params, name)) : linear_out(x, params[name]);
  };
  const at::Tensor y = product();
  return s_.bias ? add_bias(y, params[name + "_bias"]) : y;
}

at::Tensor Gpt::in(const ParamStore& params, const std::string& name, const at::Tensor& z,
                   Input input) const {
  const auto product = [&] {
    if (scales_loss()) return half_in(z, params[name]);
    return adapts(name) ? adapted_in(z, params[name], adapter(params, name))
                        : linear_in(z, params[name], input);
  };
  const at::Tensor y = product();
  return s_.bias ? add_bias(y, params[name + "_bias"]) : y;
}

at::Tensor Gpt::attention(const ParamStore& params, const std::string& prefix, const at::Tensor& x,
                          const BlockOptions& options) const {
  // [B, T, width] -> [B, count, T, head_dim]. Turned by its position before it is transposed: the attention's
  // output then lies as [B, T, width] too, and need not be copied.
  const auto heads = [&](const char* which, std::int64_t count, bool turned) {
    const at::Tensor y = out(params, prefix + which, x).view({x.size(0), x.size(1), count, head_dim_});
    return (turned && rotary_ ? (*rotary_)(y) : y).transpose(1, 2);
  };
  const at::Tensor q = heads("q", s_.heads, true), k = heads("k", s_.kv_heads, true),
                   v = heads("v", s_.kv_heads, false);
  const at::Tensor attended =
      masked_attention(q, k, v, options.mask, options.dropout.mask(DropoutPlace::probabilities));
  return in(params, prefix + "o", attended, Input::kept_anyway);
}

at::Tensor Gpt::mlp(const ParamStore& params, const std::string& prefix, const at::Tensor& x) const {
  const at::Tensor up = out(params, prefix + "up", x);
  const at::Tensor hidden = swiglu() ? at::silu(out(params, prefix + "gate", x)) * up : at::gelu(up);
  return in(params, prefix + "down", hidden);
}

bool Gpt::fast(const ParamStore& params) const {
  return s_.block == "fast" && s_.adapter_rank == 0 && params.dtype() == at::kFloat;
}

at::Tensor Gpt::layer(const ParamStore& params, const std::string& b, const at::Tensor& x,
                      const BlockOptions& options) const {
  const at::Tensor middle =
      x + dropout(attention(params, b + "attention.", norm(params, b + "norm1", x), options),
                  options.dropout.mask(DropoutPlace::attention));
  return middle + dropout(mlp(params, b + "mlp.", norm(params, b + "norm2", middle)),
                          options.dropout.mask(DropoutPlace::mlp));
}

at::Tensor Gpt::fast_layer(const ParamStore& params, const std::string& b, const at::Tensor& x,
                           const BlockOptions& options) const {
  const auto get = [&](const char* name, bool there = true) { return there ? &params[b + name] : nullptr; };
  const bool bias = s_.bias, norm_bias = s_.bias && s_.norm == "layernorm";
  const FastBlockParameters parameters{.norm1_gain = get("norm1.gain"),
                                       .norm1_bias = get("norm1.bias", norm_bias),
                                       .q = get("attention.q"),
                                       .k = get("attention.k"),
                                       .v = get("attention.v"),
                                       .q_bias = get("attention.q_bias", bias),
                                       .k_bias = get("attention.k_bias", bias),
                                       .v_bias = get("attention.v_bias", bias),
                                       .o = get("attention.o"),
                                       .o_bias = get("attention.o_bias", bias),
                                       .norm2_gain = get("norm2.gain"),
                                       .norm2_bias = get("norm2.bias", norm_bias),
                                       .up = get("mlp.up"),
                                       .gate = get("mlp.gate", swiglu()),
                                       .up_bias = get("mlp.up_bias", bias),
                                       .gate_bias = get("mlp.gate_bias", bias && swiglu()),
                                       .down = get("mlp.down"),
                                       .down_bias = get("mlp.down_bias", bias)};
  const FastBlockShape shape{s_.width, s_.heads, s_.kv_heads,          head_dim_,
                             s_.ffn,   swiglu(), s_.norm == "rmsnorm", s_.compute_precision()};
  const at::Tensor cos = rotary_ ? rotary_->cos() : at::Tensor(),
                   sin = rotary_ ? rotary_->sin() : at::Tensor();
  return fast_block(x, shape, parameters, cos, sin, params.arena(), options);
}

BlockOptions Gpt::options(const NamedTensors& batch) const {
  BlockOptions options;
  options.mask.causal = causal();
  if (const auto found = batch.find(batch_lengths); found != batch.end())
    options.mask.lengths = found->second;
  if (const auto found = batch.find(batch_draws); found != batch.end())
    options.dropout = {s_.dropout, static_cast<std::uint64_t>(*found->second.const_data_ptr<std::int64_t>())};
  return options;
}

NamedTensors Gpt::forward(const ParamStore& params, const NamedTensors& batch) const {
  const auto found = batch.find("tokens");
  TESSERA_CHECK(found != batch.end(), ": the batch has no tokens");
  const at::Tensor& tokens = found->second;
  TESSERA_CHECK_EQ(tokens.dim(), 2);
  TESSERA_CHECK_LE(tokens.size(1), s_.context);
  at::Tensor x = at::embedding(params["embed.tokens"].differentiable(), tokens);
  if (!rotary_) x = x + params["embed.positions"].differentiable().narrow(0, 0, tokens.size(1));
  BlockOptions options = this->options(batch);
  const Dropout of_step = options.dropout;
  x = dropout(x, of_step.mask(DropoutPlace::embedding));
  const Parameter& head = params[s_.tied ? "embed.tokens" : "head"];
  if (fast(params)) {
    params.arena()->expect(tokens.numel());
    for (std::int64_t i = 0; i < s_.layers; ++i) {
      options.dropout = of_step.of_layer(i);
      x = fast_layer(params, block(i), x, options);
    }
    const Parameter* const bias = s_.bias && s_.norm == "layernorm" ? &params["final_norm.bias"] : nullptr;
    return {{"logits", fast_head(x, s_.norm == "rmsnorm", s_.compute_precision(), params["final_norm.gain"],
                                 bias, head, params.arena())}};
  }
  for (std::int64_t i = 0; i < s_.layers; ++i) {
    options.dropout = of_step.of_layer(i);
    x = layer(params, block(i), x, options);
  }
  x = norm(params, "final_norm", x);
  return {{"logits", scales_loss() ? half_out(x, head) : linear_out(x, head)}};
}

NamedTensors Gpt::example_batch(std::uint64_t seed) const {
  const std::int64_t sequences = 2, length = std::min<std::int64_t>(s_.context, 16);
  KeyedRandom random(key_of({seed, 0x62617463}));
  at::Tensor tokens = at::empty({sequences, length + 1}, at::kLong);
  for (std::int64_t i = 0; i < tokens.numel(); ++i) {
    tokens.mutable_data_ptr<std::int64_t>()[i] =
        static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(s_.vocab)));
  }
  return {{"tokens", tokens.narrow(1, 0, length).contiguous()},
          {"targets", tokens.narrow(1, 1, length).contiguous()}};
}

TESSERA_REGISTER(Family, gpt, Gpt, GptSettings, "pre-norm decoder-only transformer (GPT)");

}  // namespace
}  // namespace tessera
