// The kernels of every instruction set that this processor has, against plain loops in double precision or
// one another.
#include "models/layers/kernels/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "base/random.h"
#include "base/simd_level.h"

namespace tessera {
namespace {

std::vector<float> random_floats(std::int64_t count, std::uint64_t seed, double size = 1) {
  KeyedRandom random(key_of({seed}));
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(size * random.normal());
  return values;
}

/// The largest difference, relative to the largest expected element.
template <class A, class B>
double difference(const A& actual, const B& expected) {
  double most = 0, scale = 1e-30;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i])));
    scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
  }
  return most / scale;
}

TEST(Kernels, LevelsAreThoseOfTheProcessor) {
  EXPECT_EQ(all_kernels().size(), static_cast<std::size_t>(simd_level()) + 1);
  EXPECT_EQ(&kernels(), all_kernels()[0]);
}

/// To the nearest bf16, ties to even.
float rounded(float x) {
  auto bits = std::bit_cast<std::uint32_t>(x);
  bits += 0x7fff + (bits >> 16 & 1);
  return std::bit_cast<float>(bits & 0xffff0000);
}

void check_products(const ProductKernels& products, float (*round)(float)) {
  std::uint64_t seed = 0;
  for (const std::int64_t m : {1, 5, 6, 13, 14, 29}) {
    for (const std::int64_t n : {1, 3, 8, 16, 17, 32, 50}) {
      for (const std::int64_t k : {1, 7, 64, 300, 601}) {
        const bool left_turned = seed & 1, right_turned = seed & 2, more = seed & 4;
        SCOPED_TRACE("seed " + std::to_string(++seed));
        const auto a = random_floats(m * k, seed), b = random_floats(k * n, seed + 1),
                   bias = random_floats(n, seed), addend = random_floats(m * n, seed + 2);
        std::vector<float> packed(static_cast<std::size_t>((k + 1) * (n + products.panel)));
        std::vector<float> c(static_cast<std::size_t>(m * (n + 3)), 7);
        products.pack({b.data(), right_turned ? k : n, right_turned}, k, n, packed.data());
        products.multiply({a.data(), left_turned ? m : k, left_turned}, {packed.data(), k, n}, 0, m,
                          {c.data(), n + 3, more ? addend.data() : nullptr, n, more ? bias.data() : nullptr});
        double worst = 0;
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < n + 3; ++j) {
            double sum = 7;  // columns beyond the product are not touched
            if (j < n) {
              sum = more ? static_cast<double>(addend[i * n + j]) + bias[j] : 0;
              for (std::int64_t l = 0; l < k; ++l) {
                sum += static_cast<double>(round(left_turned ? a[l * m + i] : a[i * k + l])) *
                       round(right_turned ? b[j * k + l] : b[l * n + j]);
              }
            }
            worst = std::max(worst, std::abs(sum - c[i * (n + 3) + j]) / std::sqrt(static_cast<double>(k)));
          }
        }
        EXPECT_LT(worst, 1e-5) << m << " x " << k << " x " << n;
      }
    }
  }
}

TEST(Kernels, ProductsOfAnyShapeEqualPlainLoops) {
  for (const Kernels* level : all_kernels()) {
    SCOPED_TRACE(level->level);
    check_products(level->products, [](float x) { return x; });
  }
}

TEST(Kernels, Bf16ProductsEqualPlainLoopsOverRoundedOperands) {
  if (bf16_products() == nullptr) GTEST_SKIP() << "no AVX512-BF16 here";
  check_products(*bf16_products(), rounded);
}

TEST(Kernels, ActivationsEqualTheirFormulas) {
  for (const Kernels* level : all_kernels()) {
    SCOPED_TRACE(level->level);
    const std::int64_t count = 4003;
    std::vector<float> z = random_floats(count, 1, 4), hidden(count), gate = z, up = random_floats(count, 2),
                       product(count);
    z[0] = 100, z[1] = -100, z[2] = 0, gate[0] = 80, gate[1] = -80;
    std::vector<double> value, slope, swiglu, by_gate, by_up;
    for (std::int64_t i = 0; i < count; ++i) {
      const double x = z[i], below = std::erfc(-x / std::sqrt(2.0)) / 2, g = gate[i], u = up[i],
                   s = 1 / (1 + std::exp(-g));
      value.push_back(x * below);
      slope.push_back(below + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI));
      swiglu.push_back(g * s * u);
      by_gate.push_back(u * s * (1 + g * (1 - s)));
      by_up.push_back(g * s);
    }
    level->gelu(z.data(), hidden.data(), count);
    level->swiglu(gate.data(), up.data(), product.data(), count);
    EXPECT_LT(difference(std::vector<float>(hidden.begin() + 2, hidden.end()),
                         std::vector<double>(value.begin() + 2, value.end())),
              1e-6);
    EXPECT_LT(difference(z, slope), 1e-6);
    EXPECT_LT(difference(product, swiglu), 1e-6);
    EXPECT_LT(difference(gate, by_gate), 1e-6);
    EXPECT_LT(difference(up, by_up), 1e-6);
  }
}

TEST(Kernels, NotANumberComesThrough) {
  for (const Kernels* level : all_kernels()) {
    SCOPED_TRACE(level->level);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> z(40, 1.0f), hidden(40), qkv = random_floats(3 * 4 * 6, 3), out(4 * 6), normaliser(4);
    z[33] = nan;
    level->gelu(z.data(), hidden.data(), 40);
    EXPECT_TRUE(std::isnan(hidden[33]) && std::isnan(z[33]));
    const AttentionShape shape{1, 4, 1, 1, 6, 18, 1.0f};
    std::vector<float> scratch(static_cast<std::size_t>(attention_scratch(shape)));
    qkv[18 + 6 + 2] = nan;  // the second token's key: the first token does not see it
    level->attention_forward({shape, qkv.data(), out.data(), normaliser.data()}, 0, 0, scratch.data());
    EXPECT_FALSE(std::isnan(out[0]));
    for (std::int64_t i = 6; i < 24; ++i) EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(i)]));
  }
}

TEST(Kernels, AttentionAndNormsOfAllLevelsAgree) {
  for (const std::int64_t size : {6, 16, 40}) {
    const AttentionShape shape{2, 75, 4, 2, size, 8 * size, 0.3f};
    const std::int64_t rows = 150, width = 4 * size;
    const auto qkv = random_floats(rows * shape.stride, 1), dout = random_floats(rows * width, 2),
               gain = random_floats(width, 3), bias = random_floats(width, 4);
    std::vector<std::vector<std::vector<float>>> results;
    for (const Kernels* level : all_kernels()) {
      const auto room = [](std::int64_t count) {
        return std::vector<float>(static_cast<std::size_t>(count));
      };
      std::vector<float> out = room(rows * width), normaliser = room(rows * 4),
                         dqkv = room(rows * shape.stride), scratch = room(attention_scratch(shape)),
                         y = room(rows * width), dx = y, statistics = room(2 * rows), gain_sum = room(width),
                         bias_sum = gain_sum, dx_sum = gain_sum;
      for (std::int64_t task = 0; task < 4; ++task) {
        level->attention_forward({shape, qkv.data(), out.data(), normaliser.data()}, task / 2, task % 2,
                                 scratch.data());
        level->attention_backward(
            {shape, qkv.data(), out.data(), normaliser.data(), dout.data(), dqkv.data()}, task / 2, task % 2,
            scratch.data());
      }
      level->norm_forward({out.data(), gain.data(), bias.data(), y.data(), statistics.data(), width, false},
                          0, rows);
      level->norm_backward({out.data(), statistics.data(), gain.data(), dout.data(), y.data(), dx.data(),
                            gain_sum.data(), bias_sum.data(), dx_sum.data(), width, false},
                           0, rows);
      results.push_back({out, normaliser, dqkv, y, dx, gain_sum, bias_sum, dx_sum});
    }
    for (std::size_t level = 1; level < results.size(); ++level) {
      for (std::size_t i = 0; i < results[0].size(); ++i) {
        EXPECT_LT(difference(results[level][i], results[0][i]), 1e-5)
            << all_kernels()[level]->level << " result " << i;
      }
    }
  }
}

}  // namespace
}  // namespace tessera
