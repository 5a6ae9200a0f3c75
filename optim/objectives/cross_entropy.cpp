// Next-token cross entropy in nats: reads outputs["logits"] [B, T, vocab] and batch["targets"] [B, T] int64,
// where a negative target is not counted. Optional batch["weights"] [B, T] weighs each target; the
// denominator is then the counted weight.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>

#include "base/error.h"
#include "optim/objective.h"

namespace tessera {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

const at::Tensor& get(const Tensors& tensors, const char* name) {
  const auto found = tensors.find(name);
  TESSERA_CHECK(found != tensors.end(), ": cross_entropy needs ", name);
  return found->second;
}

class CrossEntropy final : public Objective {
 public:
  CrossEntropy(const NoSettings&, const Context&) {}

  Value operator()(const Tensors& outputs, const Tensors& batch) const override {
    constexpr std::int64_t ignored = -100;
    at::Tensor logits = get(outputs, "logits").flatten(0, -2);
    if (logits.scalar_type() != at::kDouble) logits = logits.to(at::kFloat);
    at::Tensor targets = get(batch, "targets").flatten();
    TESSERA_CHECK_EQ(targets.size(0), logits.size(0));
    const at::Tensor counted = targets.ge(0);
    targets = targets.masked_fill(counted.logical_not(), ignored);
    if (!batch.contains("weights")) {
      const at::Tensor sum = at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, ignored);
      return {sum, static_cast<double>(counted.sum().item<std::int64_t>()), {}};
    }
    const at::Tensor weights = get(batch, "weights").flatten().to(logits.scalar_type()) * counted;
    const at::Tensor losses = at::cross_entropy_loss(logits, targets, {}, at::Reduction::None, ignored);
    return {(losses * weights).sum(), weights.sum().item<double>(), {}};
  }
};

TESSERA_REGISTER(Objective, cross_entropy, CrossEntropy, NoSettings,
                 "cross entropy of the next token, in nats per counted target");

}  // namespace
}  // namespace tessera
