#include "worker/operator_flops.h"

#include <ATen/core/Tensor.h>

#include <string_view>

#include "base/error.h"

namespace tessera {
namespace {

thread_local OperatorFlops* counting = nullptr;

using Inputs = c10::ArrayRef<const c10::IValue>;

at::Tensor operand(Inputs inputs, std::size_t i) {
  TESSERA_CHECK(i < inputs.size() && inputs[i].isTensor(), ": operand ", i, " of a product is no tensor");
  return inputs[i].toTensor();
}

/// 2 x the elements of `a` x the columns of `b`: [.., n, k] times [.., k, m].
double product(Inputs inputs, std::size_t first) {
  const at::Tensor a = operand(inputs, first), b = operand(inputs, first + 1);
  return 2.0 * static_cast<double>(a.numel()) * static_cast<double>(b.dim() > 1 ? b.size(-1) : 1);
}

/// So many products of attention over queries [B, H, T, d] and keys [B, H, S, d], the next operand.
double attention(Inputs inputs, std::size_t query, std::size_t causal, double products) {
  const at::Tensor q = operand(inputs, query), k = operand(inputs, query + 1);
  const double all = 2.0 * products * static_cast<double>(q.numel()) * static_cast<double>(k.size(2));
  return inputs[causal].toBool() ? all / 2 : all;
}

double flops_of(std::string_view name, Inputs inputs) {
  if (!name.starts_with("aten::")) return 0;
  name.remove_prefix(6);
  if (name == "mm" || name == "bmm" || name == "mv" || name == "dot" || name == "vdot") {
    return product(inputs, 0);
  }
  if (name == "addmm" || name == "baddbmm" || name == "addbmm" || name == "addmv" ||
      name == "_addmm_activation") {
    return product(inputs, 1);
  }
  if (name == "_scaled_dot_product_flash_attention_for_cpu") return attention(inputs, 0, 4, 2);
  if (name == "_scaled_dot_product_flash_attention_for_cpu_backward") return attention(inputs, 1, 7, 4);
  const bool fused = name.starts_with("_scaled_dot_product") && name.find("_math") == name.npos &&
                     !name.starts_with("_scaled_dot_product_attention");
  const bool other = name.find("convolution") != name.npos || name.starts_with("mkldnn_") ||
                     name.starts_with("_scaled_mm") || name.starts_with("_int_mm");
  TESSERA_CHECK(!fused && !other, ": OperatorFlops cannot count aten::", name, " yet");
  return 0;
}

}  // namespace

OperatorFlops::OperatorFlops() {
  TESSERA_CHECK(counting == nullptr, ": the operators of this thread are being counted already");
  counting = this;
  operators_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&OperatorFlops::enter_operator)
                                              .needsInputs(true)
                                              .scopes({at::RecordScope::FUNCTION}));
  nodes_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(&OperatorFlops::enter_node, &OperatorFlops::leave_node)
          .scopes({at::RecordScope::BACKWARD_FUNCTION}));
}

OperatorFlops::~OperatorFlops() {
  at::removeCallback(operators_);
  at::removeCallback(nodes_);
  counting = nullptr;
}

std::unique_ptr<at::ObserverContext> OperatorFlops::enter_operator(const at::RecordFunction& function) {
  if (counting != nullptr) {
    (counting->nodes_deep_ > 0 ? counting->backward_ : counting->forward_) +=
        flops_of(function.name(), function.inputs());
  }
  return nullptr;
}

std::unique_ptr<at::ObserverContext> OperatorFlops::enter_node(const at::RecordFunction& /*function*/) {
  if (counting != nullptr) ++counting->nodes_deep_;
  return nullptr;
}

void OperatorFlops::leave_node(const at::RecordFunction& /*function*/, at::ObserverContext* /*context*/) {
  if (counting != nullptr) --counting->nodes_deep_;
}

}  // namespace tessera
