#include "optim/inner_adam.h"

#include <ATen/TensorOperators.h>

#include <cmath>

#include "optim/kernels/kernels.h"

namespace tessera {

void AdamSettings::fields(FieldVisitor& f) {
  f.field({"lr", "learning rate, before the schedule", at_least(0)}, lr);
  f.field({"betas", "decay of the first and second moment", below_one()}, betas);
  f.field({"eps", "added to the root of the second moment", positive()}, eps);
  f.field({"weight_decay", "weight decay (not of gains and biases)", at_least(0)}, weight_decay);
}

std::vector<std::string> AdamSettings::problems() const {
  if (betas.size() == 2) return {};
  return {"inner.betas needs two numbers, not " + std::to_string(betas.size())};
}

namespace {

void update(std::span<float> value, std::span<const float> gradient, const at::Tensor& m, const at::Tensor& v,
            const AdamFactors& factors) {
  optim_kernels().adam(value.data(), gradient.data(), elements<float>(m).data(), elements<float>(v).data(),
                       static_cast<std::int64_t>(value.size()), factors);
}

/// The same in double precision.
struct WideFactors {
  double beta1_rest, beta2, beta2_rest, step_size, root_correction, eps, l2, keep;
};

void update(std::span<double> value, std::span<const double> gradient, const at::Tensor& m,
            const at::Tensor& v, const WideFactors& f) {
  double *const first = elements<double>(m).data(), *const second = elements<double>(v).data();
  for (std::size_t i = 0; i < value.size(); ++i) {
    const double g = gradient[i] + f.l2 * value[i];
    first[i] = first[i] + f.beta1_rest * (g - first[i]);
    second[i] = second[i] * f.beta2 + f.beta2_rest * g * g;
    value[i] =
        value[i] * f.keep - f.step_size * first[i] / (std::sqrt(second[i]) / f.root_correction + f.eps);
  }
}

/// The same by LibTorch's operators, for tensors that do not lie in the CPU's memory.
void update_by_operators(const Piece& piece, const at::Tensor& m, const at::Tensor& v, const WideFactors& f) {
  at::Tensor value = piece.value.detach(), gradient = gradient_of(piece);
  if (f.l2 != 0) gradient = gradient.add(value, f.l2);
  m.lerp_(gradient, f.beta1_rest);
  v.mul_(f.beta2).addcmul_(gradient, gradient, f.beta2_rest);
  value.mul_(f.keep).addcdiv_(m, v.sqrt().div_(f.root_correction).add_(f.eps), -f.step_size);
}

}  // namespace

void Adam::step(const std::vector<Piece>& pieces, double lr, std::int64_t step) {
  const double beta1 = s_.betas[0], beta2 = s_.betas[1];
  for (const Piece& piece : pieces) {
    const auto steps = static_cast<double>(step - piece.since);
    const double correction1 = 1 - std::pow(beta1, steps), correction2 = 1 - std::pow(beta2, steps);
    const double decay = piece.decay ? s_.weight_decay : 0, rate = lr * piece.lr_scale;
    const at::Tensor m = moment(piece, "exp_avg"), v = moment(piece, "exp_avg_sq");
    const auto factors = [&]<class Factors, class T>(const Factors&, T) {
      return Factors{.beta1_rest = static_cast<T>(1 - beta1),
                     .beta2 = static_cast<T>(beta2),
                     .beta2_rest = static_cast<T>(1 - beta2),
                     .step_size = static_cast<T>(rate / correction1),
                     .root_correction = static_cast<T>(std::sqrt(correction2)),
                     .eps = static_cast<T>(s_.eps),
                     .l2 = static_cast<T>(decoupled_ ? 0 : decay),
                     .keep = static_cast<T>(decoupled_ ? 1 - rate * decay : 1)};
    };
    if (by_operators(piece)) {
      update_by_operators(piece, m, v, factors(WideFactors{}, double{}));
      continue;
    }
    update_piece(piece, [&]<class T>(std::span<T> value, std::span<const T> gradient) {
      using Factors = std::conditional_t<std::is_same_v<T, float>, AdamFactors, WideFactors>;
      update(value, gradient, m, v, factors(Factors{}, T{}));
    });
  }
}

}  // namespace tessera
