// The kernels at one instruction set. Compiled once per level (cmake/TesseraSimd.cmake), which TESSERA_SIMD
// names: nothing here may have external linkage but the table, or one level's code could stand in for
// another's. Plain loops, which the compiler turns into vectors.
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

}  // namespace

#define TESSERA_JOIN(a, b) a##b
#define TESSERA_TABLE(name) TESSERA_JOIN(rule_kernels_, name)
extern const RuleKernels TESSERA_TABLE(TESSERA_SIMD);
const RuleKernels TESSERA_TABLE(TESSERA_SIMD) = {.sgd = sgd, .nesterov = nesterov, .adam = adam};

}  // namespace tessera
