// The loops of outer rules: the formulas of optim/outer.h to the bit, at every instruction set.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"
#include "optim/rule_kernels/kernels.h"

namespace tessera {

namespace {

struct Tensors {
  std::vector<float> theta, momentum, variance;
  std::vector<double> delta;
};

Tensors draw(std::size_t count) {
  KeyedRandom random(7);
  Tensors drawn;
  for (std::size_t i = 0; i < count; ++i) {
    const double magnitude = std::exp2(static_cast<double>(random.below(40)) - 20);
    drawn.theta.push_back(static_cast<float>(random.normal() * magnitude));
    drawn.momentum.push_back(static_cast<float>(random.normal()));
    drawn.variance.push_back(static_cast<float>(random.uniform()));
    drawn.delta.push_back(random.normal() * magnitude);
  }
  return drawn;
}

TEST(RuleKernels, AreTheirFormulasToTheBitAtEveryLevel) {
  const double lr = 0.37, mu = 0.9, beta2 = 0.95, epsilon = 1e-3;
  for (const std::size_t count : {1u, 7u, 8u, 33u, 1000u}) {
    SCOPED_TRACE(count);
    Tensors sgd = draw(count), nesterov = sgd, adam = sgd;
    for (std::size_t i = 0; i < count; ++i) {
      const double d = sgd.delta[i], theta = sgd.theta[i];
      sgd.theta[i] = static_cast<float>(theta - lr * d);
      const double b = mu * static_cast<double>(nesterov.momentum[i]) + d;
      nesterov.momentum[i] = static_cast<float>(b);
      nesterov.theta[i] = static_cast<float>(theta - lr * (d + mu * b));
      const double m = mu * static_cast<double>(adam.momentum[i]) + (1 - mu) * d;
      const double v = beta2 * static_cast<double>(adam.variance[i]) + (1 - beta2) * d * d;
      adam.momentum[i] = static_cast<float>(m);
      adam.variance[i] = static_cast<float>(v);
      adam.theta[i] = static_cast<float>(theta - lr * m / (std::sqrt(v) + epsilon));
    }
    for (const RuleKernels* level : rule_kernels_levels()) {
      Tensors one = draw(count), two = one, three = one;
      level->sgd(lr, one.theta.data(), one.delta.data(), count);
      level->nesterov(lr, mu, two.theta.data(), two.delta.data(), two.momentum.data(), count);
      level->adam(lr, {mu, beta2, epsilon}, three.theta.data(), three.delta.data(), three.momentum.data(),
                  three.variance.data(), count);
      EXPECT_EQ(one.theta, sgd.theta);
      EXPECT_EQ(two.theta, nesterov.theta);
      EXPECT_EQ(two.momentum, nesterov.momentum);
      EXPECT_EQ(three.theta, adam.theta);
      EXPECT_EQ(three.momentum, adam.momentum);
      EXPECT_EQ(three.variance, adam.variance);
    }
  }
}

TEST(RuleKernels, ProductsHaveTheSameBitsAtEveryLevel) {
  for (const std::size_t count : {1u, 8u, 15u, 512u, 1001u}) {
    const Tensors drawn = draw(count);
    std::vector<std::vector<double>> of_levels;
    for (const RuleKernels* level : rule_kernels_levels()) {
      std::vector<double>& sums = of_levels.emplace_back(std::vector<double>{1, 2, 3});
      level->products(drawn.delta.data(), drawn.momentum.data(), count, sums.data());
      level->products(drawn.delta.data(), nullptr, count, sums.data());
    }
    for (const std::vector<double>& sums : of_levels) EXPECT_EQ(sums, of_levels[0]) << count;
  }
}

}  // namespace
}  // namespace tessera
