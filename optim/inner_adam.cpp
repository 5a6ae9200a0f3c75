#include "optim/inner_adam.h"

#include <cmath>

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

template <class T>
struct Factors {
  T beta1_rest, beta2, beta2_rest;  ///< 1 - beta1, beta2, 1 - beta2
  T step_size, root_correction, eps;
  T l2;    ///< coupled decay: gradient += l2 * value
  T keep;  ///< decoupled decay: value *= keep
};

template <class T>
void adam_loop(T* __restrict value, const T* __restrict gradient, T* __restrict m, T* __restrict v,
               std::size_t count, Factors<T> f) {
  for (std::size_t i = 0; i < count; ++i) {
    const T g = gradient[i] + f.l2 * value[i];
    m[i] = m[i] + f.beta1_rest * (g - m[i]);
    v[i] = v[i] * f.beta2 + f.beta2_rest * g * g;
    value[i] = value[i] * f.keep - f.step_size * m[i] / (std::sqrt(v[i]) / f.root_correction + f.eps);
  }
}

}  // namespace

void Adam::step(const std::vector<Piece>& pieces, double lr, std::int64_t step) {
  const double beta1 = s_.betas[0], beta2 = s_.betas[1];
  for (const Piece& piece : pieces) {
    const auto steps = static_cast<double>(step - piece.since);
    const double correction1 = 1 - std::pow(beta1, steps), correction2 = 1 - std::pow(beta2, steps);
    const double decay = piece.decay ? s_.weight_decay : 0;
    const at::Tensor m = moment(piece, "exp_avg"), v = moment(piece, "exp_avg_sq");
    update_piece(piece, [&]<class T>(std::span<T> value, std::span<const T> gradient) {
      const Factors<T> factors{.beta1_rest = static_cast<T>(1 - beta1),
                               .beta2 = static_cast<T>(beta2),
                               .beta2_rest = static_cast<T>(1 - beta2),
                               .step_size = static_cast<T>(lr / correction1),
                               .root_correction = static_cast<T>(std::sqrt(correction2)),
                               .eps = static_cast<T>(s_.eps),
                               .l2 = static_cast<T>(decoupled_ ? 0 : decay),
                               .keep = static_cast<T>(decoupled_ ? 1 - lr * decay : 1)};
      adam_loop(value.data(), gradient.data(), elements<T>(m).data(), elements<T>(v).data(), value.size(),
                factors);
    });
  }
}

}  // namespace tessera
