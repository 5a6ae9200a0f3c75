// The final norm and the output head of the fast path as one autograd function.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>

#include "base/error.h"
#include "models/layers/fast_block.h"
#include "models/layers/fast_weight.h"

namespace tessera {
namespace {

using at::Tensor;

class HeadNode final : public torch::autograd::Node {
 public:
  HeadNode(FastProducts products, const Tensor& x, bool rms, const Parameter& gain, const Parameter* bias,
           const Parameter& head)
      : products_(std::move(products)), x_(x.detach()), rms_(rms) {
    add_next_edge(torch::autograd::impl::gradient_edge(x));
    gain_ = FastWeight(gain, *this);
    if (bias != nullptr) bias_ = FastWeight(*bias, *this);
    head_ = FastWeight(head, *this);
  }
  bool useful() const {
    const auto& edges = next_edges();
    return std::any_of(edges.begin(), edges.end(), [](const auto& edge) { return edge.is_valid(); });
  }
  /// What the backward pass needs; the normed rows only for gradients of the head.
  void keep(ArenaBuffer statistics, ArenaBuffer normed) {
    statistics_ = std::move(statistics);
    if (head_.owned()) normed_ = std::move(normed);
  }

  variable_list apply(variable_list&& gradients) override;
  void release_variables() override {
    x_.reset();
    statistics_.release();
    normed_.release();
  }
  std::string name() const override { return "FastHead"; }

 private:
  FastProducts products_;
  Tensor x_;
  bool rms_;
  FastWeight gain_, bias_, head_;
  ArenaBuffer statistics_, normed_;
};

variable_list HeadNode::apply(variable_list&& gradients) {
  TESSERA_CHECK(!at::GradMode::is_enabled(),
                ": the fast head cannot be differentiated twice; model.block = \"plain\" can");
  TESSERA_CHECK(x_.defined(), ": the head's buffers went back after an earlier backward pass");
  variable_list result(num_outputs());
  if (!gradients[0].defined()) return result;
  const Tensor dy = gradients[0].contiguous();
  const std::int64_t width = x_.size(-1), units = dy.size(-1), rows = dy.numel() / units;
  const float* const dlogits = dy.const_data_ptr<float>();
  if (head_.wanted(*this)) {
    head_.add_products(*this, products_, dlogits, units, products_.pack({normed_.data(), width}, rows, width),
                       /*compact=*/false, result);
  }
  const bool input = task_should_compute_output(0), gain = gain_.wanted(*this), bias = bias_.wanted(*this);
  if (!input && !gain && !bias) return result;
  const ArenaBuffer dnormed = products_.take(rows * width), sums = products_.take(2 * width);
  products_.multiply(FlopKind::activation_gradient, {dlogits, units}, rows, head_.matrix(), Through::in,
                     {.data = dnormed.data(), .stride = width});
  if (input) result[0] = at::empty_like(x_);
  NormBackward norm{.x = x_.const_data_ptr<float>(),
                    .statistics = statistics_.data(),
                    .gain = gain_.data(),
                    .dy = dnormed.data(),
                    .dx = input ? result[0].mutable_data_ptr<float>() : nullptr,
                    .width = width,
                    .rms = rms_};
  products_.over_rows(rows, width, gain || bias ? sums.data() : nullptr, 2 * width,
                      [&](std::int64_t begin, std::int64_t end, float* partial) {
                        NormBackward part = norm;
                        if (gain) part.gain_sum = partial;
                        if (bias) part.bias_sum = partial + width;
                        products_.kernels().norm_backward(part, begin, end);
                      });
  if (gain) gain_.add_slices(*this, sums.data(), result);
  if (bias) bias_.add_slices(*this, sums.data() + width, result);
  return result;
}

}  // namespace

Tensor fast_head(const Tensor& given, bool rms, Precision precision, const Parameter& gain,
                 const Parameter* bias, const Parameter& head, const std::shared_ptr<Arena>& arena) {
  TESSERA_CHECK(given.scalar_type() == at::kFloat && given.dim() == 3 &&
                given.size(2) == head.spec.row_size());
  const Tensor x = given.contiguous();
  const std::int64_t width = x.size(2), rows = x.size(0) * x.size(1), units = head.spec.rows();
  const FastProducts products(precision, arena);
  ArenaBuffer normed = products.take(rows * width), statistics = products.take(2 * rows);
  const NormForward norm{x.const_data_ptr<float>(), values(&gain), values(bias), normed.data(),
                         statistics.data(),         width,         rms};
  products.over_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
    products.kernels().norm_forward(norm, begin, end);
  });
  Tensor y = at::empty({x.size(0), x.size(1), units}, x.options().requires_grad(false));
  products.multiply(FlopKind::forward, {normed.data(), width}, rows, matrix_of(head), Through::out,
                    {.data = y.mutable_data_ptr<float>(), .stride = units});
  if (at::GradMode::is_enabled()) {
    const auto node = std::shared_ptr<HeadNode>(new HeadNode(products, x, rms, gain, bias, head),
                                                torch::autograd::deleteNode);
    if (node->useful()) {
      node->keep(std::move(statistics), std::move(normed));
      torch::autograd::set_history(y, node);
    }
  }
  return y;
}

}  // namespace tessera
