// Stochastic gradient descent with momentum, Nesterov momentum and L2 decay; formulas as torch.optim.SGD
// without dampening.
#include "base/fields.h"
#include "optim/inner_state.h"

namespace tessera {
namespace {

struct SgdSettings : Settings {
  double lr = 0.1, momentum = 0, weight_decay = 0;
  bool nesterov = false;

  void fields(FieldVisitor& f) override {
    f.field({"lr", "learning rate, before the schedule", at_least(0)}, lr);
    f.field({"momentum", "decay of the running sum of gradients; 0: none is kept", below_one()}, momentum);
    f.field({"nesterov", "look ahead along the momentum"}, nesterov);
    f.field({"weight_decay", "added to the gradient (L2; not of gains and biases)", at_least(0)},
            weight_decay);
  }
  std::vector<std::string> problems() const override {
    if (nesterov && momentum == 0) return {"inner.nesterov = true needs inner.momentum > 0"};
    return {};
  }
};

/// State per piece: "momentum", where the settings have one.
class Sgd final : public MomentOptimizer {
 public:
  Sgd(const SgdSettings& settings, const Context&) : s_(settings) {}

  void step(const std::vector<Piece>& pieces, double lr, std::int64_t /*step*/) override {
    for (const Piece& piece : pieces) {
      const at::Tensor buffer = s_.momentum != 0 ? moment(piece, "momentum") : at::Tensor();
      const double decay = piece.decay ? s_.weight_decay : 0;
      if (by_operators(piece)) {
        update_by_operators(piece, buffer, lr * piece.lr_scale, decay);
        continue;
      }
      update_piece(piece, [&]<class T>(std::span<T> value, std::span<const T> gradient) {
        const auto rate = static_cast<T>(lr * piece.lr_scale), l2 = static_cast<T>(decay),
                   mu = static_cast<T>(s_.momentum);
        T* sum = buffer.defined() ? elements<T>(buffer).data() : nullptr;
        for (std::size_t i = 0; i < value.size(); ++i) {
          T direction = gradient[i] + l2 * value[i];
          if (sum != nullptr) {
            sum[i] = mu * sum[i] + direction;
            direction = s_.nesterov ? direction + mu * sum[i] : sum[i];
          }
          value[i] -= rate * direction;
        }
      });
    }
  }
  double moments_per_parameter(bool /*hidden*/) const override { return s_.momentum != 0 ? 1 : 0; }
  double base_lr() const override { return s_.lr; }

 private:
  /// The same by LibTorch's operators, for tensors that do not lie in the CPU's memory.
  void update_by_operators(const Piece& piece, const at::Tensor& sum, double rate, double decay) const {
    at::Tensor value = piece.value.detach(), direction = gradient_of(piece).add(value, decay);
    if (sum.defined()) {
      sum.mul_(s_.momentum).add_(direction);
      direction = s_.nesterov ? direction.add(sum, s_.momentum) : sum;
    }
    value.sub_(direction, rate);
  }

  SgdSettings s_;
};

TESSERA_REGISTER(InnerOptimizer, sgd, Sgd, SgdSettings, "SGD with momentum, Nesterov momentum and L2 decay");

}  // namespace
}  // namespace tessera
