// The kernels at one instruction set. Compiled once per level (cmake/TesseraSimd.cmake), which TESSERA_SIMD
// names: nothing here may have external linkage but the table, or one level's code could stand in for
// another's. Plain loops, which the compiler turns into vectors.
#include "base/simd_doubles.h"
#include "base/simd_table.h"
#include "optim/rule_kernels/kernels.h"

namespace tessera {
namespace {

void sgd(double lr, float* __restrict theta, const double* __restrict delta, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    theta[i] = static_cast<float>(static_cast<double>(theta[i]) - lr * delta[i]);
}

void nesterov(double lr, double mu, float* __restrict theta, const double* __restrict delta,
              float* __restrict momentum, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const double b = mu * static_cast<double>(momentum[i]) + delta[i];
    momentum[i] = static_cast<float>(b);
    theta[i] = static_cast<float>(static_cast<double>(theta[i]) - lr * (delta[i] + mu * b));
  }
}

void adam(double lr, AdamRule rule, float* __restrict theta, const double* __restrict delta,
          float* __restrict momentum, float* __restrict variance, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const double m = rule.beta1 * static_cast<double>(momentum[i]) + (1 - rule.beta1) * delta[i];
    const double v = rule.beta2 * static_cast<double>(variance[i]) + (1 - rule.beta2) * delta[i] * delta[i];
    momentum[i] = static_cast<float>(m);
    variance[i] = static_cast<float>(v);
    theta[i] =
        static_cast<float>(static_cast<double>(theta[i]) - lr * m / (__builtin_sqrt(v) + rule.epsilon));
  }
}

template <bool has_momentum>
void products_with(const double* __restrict delta, const float* __restrict momentum, std::size_t count,
                   double* __restrict sums) {
  Doubles dd = {}, db = {}, bb = {};
  std::size_t i = 0;
  for (; i + double_lanes <= count; i += double_lanes) {
    const Doubles d = load(delta + i);
    dd += d * d;
    if constexpr (has_momentum) {
      const Doubles b = load(momentum + i);
      db += d * b;
      bb += b * b;
    }
  }
  for (; i < count; ++i) {
    const double d = delta[i], b = has_momentum ? static_cast<double>(momentum[i]) : 0.0;
    dd[0] += d * d, db[0] += d * b, bb[0] += b * b;
  }
  sums[0] += total(dd), sums[1] += total(db), sums[2] += total(bb);
}

void products(const double* delta, const float* momentum, std::size_t count, double* sums) {
  momentum == nullptr ? products_with<false>(delta, nullptr, count, sums)
                      : products_with<true>(delta, momentum, count, sums);
}

}  // namespace

TESSERA_SIMD_TABLE(RuleKernels, rule_kernels) = {
    .sgd = sgd, .nesterov = nesterov, .adam = adam, .products = products};

}  // namespace tessera
