#include "models/layers/fast_block.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>

#include "base/error.h"
#include "models/layers/fast_block_state.h"
#include "models/layers/fast_weight.h"

namespace tessera {
namespace {

using at::Tensor;
using torch::autograd::Node;

/// The columns of `hidden` that gradients of the down projection need, one owned range after another.
ArenaBuffer owned_columns(const BlockState& s, ArenaBuffer hidden, const FastWeight& down) {
  if (!down.owned()) return {};
  if (down.whole()) return hidden;
  const std::int64_t columns = down.owned_rows();
  ArenaBuffer kept = s.products.take(s.rows() * columns);
  s.products.over_rows(s.rows(), columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* to = kept.data() + row * columns;
      for (const Rows& range : down.rows()) {
        to = std::copy_n(hidden.data() + row * s.shape.ffn + range.begin, range.count(), to);
      }
    }
  });
  return kept;
}

// ---- backward ----

class BlockNode final : public Node {
 public:
  BlockNode(const FastBlockParameters& parameters, const Tensor& x);
  variable_list apply(variable_list&& gradients) override;
  void release_variables() override { state.reset(); }
  std::string name() const override { return "FastBlock"; }

  std::unique_ptr<BlockState> state;
  PerBlock<FastWeight> weights;

 private:
  ArenaBuffer scratch(std::int64_t width) const { return state->products.take(state->rows() * width); }
  bool any_wanted(std::initializer_list<const FastWeight*> some) const;
  void add_bias(const FastWeight& bias, const float* gradient, std::int64_t stride, std::int64_t width,
                variable_list& result) const;
  /// to [rows, units of the weight] = dy W^T: through a product back to the width.
  void through_back(const float* dy, const FastWeight& weight, std::int64_t units, float* to) const;
  /// to [rows, width] (+)= dz W: through a product out of the width.
  void through_out(const float* dz, std::int64_t stride, const FastWeight& weight, float* to, bool add) const;
  /// Through a norm, with the gradients of its gain and bias, to `to` (null: not wanted) plus the residual's.
  void through_norm(const float* x, const ArenaBuffer& statistics, const FastWeight& gain,
                    const FastWeight& bias, const float* dy, const float* residual, float* to,
                    variable_list& result) const;
  /// dy masked as the outputs of `place` were, in `room`; dy itself where there is no dropout.
  const float* through_dropout(const float* dy, DropoutPlace place, ArenaBuffer& room) const;
  ArenaBuffer through_mlp(const float* dy, bool input, variable_list& result) const;
  ArenaBuffer through_attention(const float* dy, bool input, variable_list& result) const;
};

BlockNode::BlockNode(const FastBlockParameters& p, const Tensor& x) {
  add_next_edge(torch::autograd::impl::gradient_edge(x));
  const auto take = [this](const Parameter* parameter) {
    return parameter == nullptr ? FastWeight() : FastWeight(*parameter, *this);
  };
  // In the order of the members: edges are numbered as they are added.
  weights = {take(p.norm1_gain), take(p.norm1_bias), take(p.q),        take(p.k),    take(p.v),
             take(p.q_bias),     take(p.k_bias),     take(p.v_bias),   take(p.o),    take(p.o_bias),
             take(p.norm2_gain), take(p.norm2_bias), take(p.up),       take(p.gate), take(p.up_bias),
             take(p.gate_bias),  take(p.down),       take(p.down_bias)};
}

bool BlockNode::any_wanted(std::initializer_list<const FastWeight*> some) const {
  return std::any_of(some.begin(), some.end(), [this](const FastWeight* w) { return w->wanted(*this); });
}

void BlockNode::add_bias(const FastWeight& bias, const float* gradient, std::int64_t stride,
                         std::int64_t width, variable_list& result) const {
  if (!bias.wanted(*this)) return;
  const ArenaBuffer sum = state->products.take(width);
  const Kernels& kernels = state->products.kernels();
  state->products.over_rows(state->rows(), width, sum.data(), width,
                            [&](std::int64_t begin, std::int64_t end, float* sums) {
                              kernels.add_rows(gradient + begin * stride, stride, sums, width, end - begin);
                            });
  bias.add_slices(*this, sum.data(), result);
}

void BlockNode::through_back(const float* dy, const FastWeight& weight, std::int64_t units, float* to) const {
  const std::int64_t width = state->shape.width;
  state->products.multiply(FlopKind::activation_gradient, {dy, width}, state->rows(), weight.matrix(),
                           Through::out, {.data = to, .stride = units});
}

void BlockNode::through_out(const float* dz, std::int64_t stride, const FastWeight& weight, float* to,
                            bool add) const {
  const std::int64_t width = state->shape.width;
  state->products.multiply(FlopKind::activation_gradient, {dz, stride}, state->rows(), weight.matrix(),
                           Through::in, {to, width, add ? to : nullptr, width});
}

void BlockNode::through_norm(const float* x, const ArenaBuffer& statistics, const FastWeight& gain,
                             const FastWeight& bias, const float* dy, const float* residual, float* to,
                             variable_list& result) const {
  const std::int64_t width = state->shape.width;
  const bool gain_wanted = gain.wanted(*this), bias_wanted = bias.wanted(*this);
  const ArenaBuffer sums = state->products.take(2 * width);
  state->products.over_rows(state->rows(), width, gain_wanted || bias_wanted ? sums.data() : nullptr,
                            2 * width, [&](std::int64_t begin, std::int64_t end, float* partial) {
                              state->products.kernels().norm_backward(
                                  {.x = x,
                                   .statistics = statistics.data(),
                                   .gain = gain.data(),
                                   .dy = dy,
                                   .residual = residual,
                                   .dx = to,
                                   .gain_sum = gain_wanted ? partial : nullptr,
                                   .bias_sum = bias_wanted ? partial + width : nullptr,
                                   .width = width,
                                   .rms = state->shape.rms},
                                  begin, end);
                            });
  if (gain_wanted) gain.add_slices(*this, sums.data(), result);
  if (bias_wanted) bias.add_slices(*this, sums.data() + width, result);
}

const float* BlockNode::through_dropout(const float* dy, DropoutPlace place, ArenaBuffer& room) const {
  const DropoutMask mask = state->options.dropout.mask(place);
  if (!mask.drops()) return dy;
  room = scratch(state->shape.width);
  state->products.drop({.mask = mask, .x = dy, .y = room.data(), .width = state->shape.width}, state->rows());
  return room.data();
}

/// dy of the block -> gradients of the MLP's weights, and of its normed input where that is wanted.
ArenaBuffer BlockNode::through_mlp(const float* dy, bool input, variable_list& result) const {
  const BlockState& s = *state;
  ArenaBuffer room;
  dy = through_dropout(dy, DropoutPlace::mlp, room);
  const std::int64_t width = s.shape.width, ffn = s.shape.ffn;
  add_bias(weights.down_bias, dy, width, width, result);
  if (weights.down.wanted(*this)) {
    const std::int64_t stride = weights.down.owned_rows();
    weights.down.add_products(*this, s.products, s.hidden.data(), stride,
                              s.products.pack({dy, width}, s.rows(), width),
                              /*compact=*/true, result);
  }
  ArenaBuffer input_gradient;
  if (!input && !any_wanted({&weights.up, &weights.up_bias, &weights.gate, &weights.gate_bias}))
    return input_gradient;

  const ArenaBuffer dhidden = scratch(ffn);
  through_back(dy, weights.down, ffn, dhidden.data());
  Panels normed;
  if (any_wanted({&weights.up, &weights.gate}))
    normed = s.products.pack({s.normed2.data(), width}, s.rows(), width);
  if (input) input_gradient = scratch(width);
  const auto one = [&](const ArenaBuffer& slope, const FastWeight& weight, const FastWeight& bias, float* to,
                       bool add) {
    const ArenaBuffer sums = bias.wanted(*this) ? s.products.take(ffn) : ArenaBuffer();
    s.products.over_rows(
        s.rows(), ffn, sums.data(), ffn, [&](std::int64_t begin, std::int64_t end, float* partial) {
          s.products.kernels().scale_rows(dhidden.data() + begin * ffn, slope.data() + begin * ffn,
                                          to + begin * ffn, partial, ffn, end - begin);
        });
    if (sums) bias.add_slices(*this, sums.data(), result);
    weight.add_products(*this, s.products, to, ffn, normed, /*compact=*/false, result);
    if (input) through_out(to, ffn, weight, input_gradient.data(), add);
  };
  if (s.shape.swiglu) {
    const ArenaBuffer dgate = scratch(ffn);
    one(s.slope, weights.gate, weights.gate_bias, dgate.data(), false);
    one(s.slope_up, weights.up, weights.up_bias, dhidden.data(), true);
  } else {
    one(s.slope, weights.up, weights.up_bias, dhidden.data(), false);
  }
  return input_gradient;
}

/// Gradient of the residual stream after attention -> gradients of the attention's weights, and of its normed
/// input where that is wanted.
ArenaBuffer BlockNode::through_attention(const float* dy, bool input, variable_list& result) const {
  const BlockState& s = *state;
  ArenaBuffer room;
  dy = through_dropout(dy, DropoutPlace::attention, room);
  const std::int64_t width = s.shape.width, stride = s.qkv_width();
  add_bias(weights.o_bias, dy, width, width, result);
  if (weights.o.wanted(*this)) {
    weights.o.add_products(*this, s.products, s.attended.data(), s.queries(),
                           s.products.pack({dy, width}, s.rows(), width),
                           /*compact=*/false, result);
  }
  ArenaBuffer input_gradient;
  if (!input &&
      !any_wanted({&weights.q, &weights.k, &weights.v, &weights.q_bias, &weights.k_bias, &weights.v_bias})) {
    return input_gradient;
  }
  const ArenaBuffer dattended = scratch(s.queries()), dqkv = scratch(stride);
  through_back(dy, weights.o, s.queries(), dattended.data());
  s.products.attention(AttentionBackward{s.attention(), s.qkv.data(), s.attended.data(), s.normaliser.data(),
                                         dattended.data(), dqkv.data()});
  s.rotate(dqkv.data(), true);
  Panels normed;
  if (any_wanted({&weights.q, &weights.k, &weights.v})) {
    normed = s.products.pack({s.normed1.data(), width}, s.rows(), width);
  }
  if (input) input_gradient = scratch(width);
  const auto one = [&](const FastWeight& weight, const FastWeight& bias, const float* dz,
                       std::int64_t units) {
    add_bias(bias, dz, stride, units, result);
    weight.add_products(*this, s.products, dz, stride, normed, /*compact=*/false, result);
    if (input) through_out(dz, stride, weight, input_gradient.data(), dz != dqkv.data());
  };
  one(weights.q, weights.q_bias, dqkv.data(), s.queries());
  one(weights.k, weights.k_bias, dqkv.data() + s.queries(), s.keys());
  one(weights.v, weights.v_bias, dqkv.data() + s.queries() + s.keys(), s.keys());
  return input_gradient;
}

variable_list BlockNode::apply(variable_list&& gradients) {
  TESSERA_CHECK(!at::GradMode::is_enabled(),
                ": the fast block cannot be differentiated twice; model.block = \"plain\" can");
  TESSERA_CHECK(state != nullptr, ": the block's buffers went back after an earlier backward pass");
  variable_list result(num_outputs());
  if (!gradients[0].defined()) return result;
  const Tensor dy = gradients[0].contiguous();
  const PerBlock<FastWeight>& w = weights;
  // From the far end: what further gradients need.
  const bool input = task_should_compute_output(0);
  const bool attention_input = input || any_wanted({&w.norm1_gain, &w.norm1_bias});
  const bool middle =
      attention_input || any_wanted({&w.q, &w.k, &w.v, &w.q_bias, &w.k_bias, &w.v_bias, &w.o, &w.o_bias});
  const bool mlp_input = middle || any_wanted({&w.norm2_gain, &w.norm2_bias});

  ArenaBuffer dmiddle;
  {
    const ArenaBuffer dnormed = through_mlp(dy.const_data_ptr<float>(), mlp_input, result);
    if (!mlp_input) return result;
    if (middle) dmiddle = scratch(state->shape.width);
    through_norm(state->middle.data(), state->statistics2, w.norm2_gain, w.norm2_bias, dnormed.data(),
                 dy.const_data_ptr<float>(), dmiddle.data(), result);
  }
  if (!middle) return result;
  const ArenaBuffer dnormed = through_attention(dmiddle.data(), attention_input, result);
  if (!attention_input) return result;
  if (input) result[0] = at::empty_like(dy);
  through_norm(state->x.const_data_ptr<float>(), state->statistics1, w.norm1_gain, w.norm1_bias,
               dnormed.data(), dmiddle.data(), input ? result[0].mutable_data_ptr<float>() : nullptr, result);
  return result;
}

void check_lengths(const Tensor& lengths, std::int64_t sequences, std::int64_t longest) {
  if (!lengths.defined()) return;
  TESSERA_CHECK(lengths.scalar_type() == at::kLong && lengths.device().is_cpu() && lengths.is_contiguous());
  TESSERA_CHECK_EQ(lengths.numel(), sequences);
  for (std::int64_t i = 0; i < sequences; ++i) {
    const std::int64_t length = lengths.const_data_ptr<std::int64_t>()[i];
    TESSERA_CHECK(length >= 0 && length <= longest, ": ", length, " valid positions of ", longest);
  }
}

}  // namespace

Tensor fast_block(const Tensor& x, const FastBlockShape& shape, const FastBlockParameters& parameters,
                  const Tensor& cos, const Tensor& sin, const std::shared_ptr<Arena>& arena,
                  const BlockOptions& options) {
  TESSERA_CHECK(x.scalar_type() == at::kFloat && x.dim() == 3 && x.size(2) == shape.width);
  check_lengths(options.mask.lengths, x.size(0), x.size(1));
  auto state = std::unique_ptr<BlockState>(new BlockState{.shape = shape,
                                                          .products = FastProducts(shape.precision, arena),
                                                          .batch = x.size(0),
                                                          .length = x.size(1),
                                                          .x = x.detach().contiguous(),
                                                          .cos = cos,
                                                          .sin = sin,
                                                          .options = options});
  std::shared_ptr<BlockNode> node;
  if (at::GradMode::is_enabled()) {
    node = std::shared_ptr<BlockNode>(new BlockNode(parameters, x), torch::autograd::deleteNode);
    const auto& edges = node->next_edges();
    if (std::none_of(edges.begin(), edges.end(), [](const auto& edge) { return edge.is_valid(); }))
      node.reset();
  }
  const auto owned = [&node](FastWeight PerBlock<FastWeight>::*weight) {
    return node && (node->weights.*weight).owned();
  };
  using W = PerBlock<FastWeight>;
  attend(*state, parameters, owned(&W::q) || owned(&W::k) || owned(&W::v));
  ArenaBuffer hidden = hidden_units(*state, parameters, owned(&W::up) || owned(&W::gate));
  Tensor y = at::empty_like(state->x);
  project_back(*state, hidden, parameters.down, parameters.down_bias, state->middle.data(), DropoutPlace::mlp,
               y.mutable_data_ptr<float>());
  if (node) {
    state->hidden = owned_columns(*state, std::move(hidden), node->weights.down);
    node->state = std::move(state);
    torch::autograd::set_history(y, node);
  }
  return y;
}

}  // namespace tessera
