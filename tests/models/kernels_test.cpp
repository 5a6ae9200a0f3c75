// The kernels of every instruction set that this processor has, against plain loops in double precision or
// one another.
#include "models/layers/kernels/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
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

TEST(Kernels, DropoutDropsItsShareAndAllLevelsDropTheSame) {
  for (const double rate : {0.1, 0.5, 0.93}) {
    const DropoutMask mask{key_of({3}), static_cast<std::uint32_t>(std::ldexp(rate, 32)),
                           static_cast<float>(1 / (1 - rate))};
    const std::int64_t rows = 301, width = 1003;
    const std::vector<float> ones(static_cast<std::size_t>(rows * width), 1.0f);
    std::vector<std::vector<float>> masks;
    for (const Kernels* level : all_kernels()) {
      std::vector<float> y(ones.size(), 7.0f), again = ones;
      level->drop({mask, ones.data(), nullptr, y.data(), width}, 0, rows);
      // In place, added to something, in two parts.
      for (std::int64_t row : {0, 100}) {
        level->drop({mask, again.data(), ones.data(), again.data(), width}, row, row == 0 ? 100 : rows);
      }
      for (std::size_t i = 0; i < y.size(); ++i) {
        ASSERT_TRUE(y[i] == 0 || y[i] == mask.scale);
        ASSERT_EQ(again[i], 1 + y[i]);
      }
      const double elements = static_cast<double>(y.size());
      const double share = static_cast<double>(std::count(y.begin(), y.end(), 0.0f)) / elements;
      EXPECT_NEAR(share, rate, 4 * std::sqrt(rate * (1 - rate) / elements));
      masks.push_back(y);
    }
    for (const auto& other : masks) EXPECT_EQ(other, masks[0]);
  }
}

/// Rows of one mask beside each other, shifted, and those of another key: as far from correlated as chance
/// is.
TEST(Kernels, RowsShiftsAndKeysOfDropoutAreUncorrelated) {
  const double rate = 0.3;
  const std::int64_t rows = 400, width = 512, elements = rows * width;
  const auto centred = [&](std::uint64_t key) {
    std::vector<float> y(static_cast<std::size_t>(elements), 1.0f);
    kernels().drop(
        {{key, static_cast<std::uint32_t>(std::ldexp(rate, 32)), 1}, y.data(), nullptr, y.data(), width}, 0,
        rows);
    for (float& value : y) value -= static_cast<float>(1 - rate);
    return y;
  };
  const auto correlation = [&](const std::vector<float>& a, const std::vector<float>& b, std::int64_t shift) {
    double sum = 0;
    for (std::int64_t i = 0; i + shift < elements; ++i)
      sum += static_cast<double>(a[static_cast<std::size_t>(i)]) * b[static_cast<std::size_t>(i + shift)];
    return sum / (rate * (1 - rate)) /
           std::sqrt(static_cast<double>(elements - shift));  // in standard errors
  };
  const std::vector<float> one = centred(key_of({1, 0}));
  for (std::int64_t shift : {1, 2, 3, 8, 16, 64, 256, 511, 512, 513, 1024, 4096}) {
    EXPECT_LT(std::abs(correlation(one, one, shift)), 4.5) << "shift " << shift;
  }
  for (std::uint64_t bit = 0; bit < 64; ++bit) {
    EXPECT_LT(std::abs(correlation(one, centred(key_of({1, 0}) ^ (1ull << bit)), 0)), 4.5) << "bit " << bit;
  }
  for (std::uint64_t step = 1; step < 30; ++step) {
    EXPECT_LT(std::abs(correlation(one, centred(key_of({1, step})), 0)), 4.5) << "step " << step;
  }
  // Every column drops its share, and so does every row.
  std::vector<double> columns(static_cast<std::size_t>(width)), lines(static_cast<std::size_t>(rows));
  for (std::int64_t i = 0; i < elements; ++i) {
    columns[static_cast<std::size_t>(i % width)] += one[static_cast<std::size_t>(i)];
    lines[static_cast<std::size_t>(i / width)] += one[static_cast<std::size_t>(i)];
  }
  const auto chi_square = [&](const std::vector<double>& sums) {
    double total = 0;
    for (const double sum : sums) total += sum * sum;
    const double count = static_cast<double>(sums.size());
    return (total / (static_cast<double>(elements) / count * rate * (1 - rate)) - count) /
           std::sqrt(2 * count);
  };
  EXPECT_LT(std::abs(chi_square(columns)), 4.5);
  EXPECT_LT(std::abs(chi_square(lines)), 4.5);
}

/// Attention and its gradients by loops over all pairs in double precision, with the masks written out.
struct PlainAttention {
  std::vector<double> out, dqkv;

  PlainAttention(const AttentionShape& s, const std::vector<float>& qkv, const std::vector<float>& dout)
      : out(dout.size()), dqkv(qkv.size()) {
    for (std::int64_t sequence = 0; sequence < s.batch; ++sequence) {
      for (std::int64_t head = 0; head < s.heads; ++head) {
        for (std::int64_t query = 0; query < s.valid(sequence); ++query)
          one(s, qkv, dout, sequence, head, query);
      }
    }
  }

 private:
  void one(const AttentionShape& s, const std::vector<float>& qkv, const std::vector<float>& dout,
           std::int64_t sequence, std::int64_t head, std::int64_t query) {
    const std::int64_t group = head / (s.heads / s.groups), first = sequence * s.length;
    const auto column = [&](std::int64_t token, std::int64_t which, std::int64_t c) {
      return static_cast<std::size_t>((first + token) * s.stride + which * s.size + c);
    };
    const auto at = [&](std::int64_t c) {
      return static_cast<std::size_t>(((first + query) * s.heads + head) * s.size + c);
    };
    const std::int64_t keys = s.causal ? query + 1 : s.valid(sequence);
    std::vector<double> p(static_cast<std::size_t>(keys)), factor(p.size(), 1), dp(p.size());
    double total = 0, mean = 0;
    for (std::int64_t key = 0; key < keys; ++key) {
      double score = 0;
      for (std::int64_t c = 0; c < s.size; ++c)
        score += static_cast<double>(qkv[column(query, head, c)]) * qkv[column(key, s.heads + group, c)];
      total += p[static_cast<std::size_t>(key)] = std::exp(score * s.scale);
    }
    if (s.dropout.drops()) {
      std::vector<float> row(static_cast<std::size_t>((sequence * s.heads + head) * s.length + query + 1) *
                                 static_cast<std::size_t>(keys),
                             1.0f);
      const std::int64_t index = (sequence * s.heads + head) * s.length + query;
      kernels().drop({s.dropout, row.data(), nullptr, row.data(), keys}, index, index + 1);
      std::copy(row.end() - keys, row.end(), factor.begin());
    }
    for (std::size_t key = 0; key < p.size(); ++key) {
      p[key] /= total;
      for (std::int64_t c = 0; c < s.size; ++c) {
        const std::size_t value = column(static_cast<std::int64_t>(key), s.heads + s.groups + group, c);
        out[at(c)] += p[key] * factor[key] * qkv[value];
        dqkv[value] += p[key] * factor[key] * dout[at(c)];
        dp[key] += factor[key] * qkv[value] * dout[at(c)];
      }
      mean += p[key] * dp[key];
    }
    for (std::size_t key = 0; key < p.size(); ++key) {
      const double slope = p[key] * (dp[key] - mean) * s.scale;
      for (std::int64_t c = 0; c < s.size; ++c) {
        const std::size_t k = column(static_cast<std::int64_t>(key), s.heads + group, c),
                          q = column(query, head, c);
        dqkv[q] += slope * qkv[k];
        dqkv[k] += slope * qkv[q];
      }
    }
  }
};

TEST(Kernels, AttentionWithAnyMaskAndDropoutEqualsLoopsOverAllPairs) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    KeyedRandom random(key_of({seed, 77}));
    const auto below = [&random](std::uint64_t bound) {
      return static_cast<std::int64_t>(random.below(bound));
    };
    const std::int64_t groups = 1 + below(3), heads = groups * (1 + below(3)), size = 1 + below(40),
                       length = 1 + below(130), batch = 1 + below(3);
    std::vector<std::int64_t> lengths;
    for (std::int64_t i = 0; i < batch; ++i) lengths.push_back(below(static_cast<std::uint64_t>(length) + 1));
    AttentionShape shape{batch, length, heads, groups, size, (heads + 2 * groups) * size, 0.4f};
    shape.causal = below(2) == 0;
    if (below(3) > 0) shape.lengths = lengths.data();
    const double rate = below(3) == 0 ? 0 : 0.9 * random.uniform();
    shape.dropout = {key_of({seed}), static_cast<std::uint32_t>(std::ldexp(rate, 32)),
                     static_cast<float>(1 / (1 - rate))};
    const auto qkv = random_floats(batch * length * shape.stride, seed),
               dout = random_floats(batch * length * heads * size, seed + 1000);
    const PlainAttention expected(shape, qkv, dout);
    for (const Kernels* level : all_kernels()) {
      SCOPED_TRACE(std::string(level->level) + " seed " + std::to_string(seed));
      const float nan = std::numeric_limits<float>::quiet_NaN();  // what is left as it was shows
      std::vector<float> out(dout.size(), nan), dqkv(qkv.size(), nan),
          normaliser(static_cast<std::size_t>(batch * heads * length), nan),
          scratch(static_cast<std::size_t>(attention_scratch(shape)), nan);
      for (std::int64_t task = 0; task < batch * groups; ++task) {
        level->attention_forward({shape, qkv.data(), out.data(), normaliser.data()}, task / groups,
                                 task % groups, scratch.data());
        level->attention_backward(
            {shape, qkv.data(), out.data(), normaliser.data(), dout.data(), dqkv.data()}, task / groups,
            task % groups, scratch.data());
      }
      EXPECT_FALSE(std::any_of(out.begin(), out.end(), [](float x) { return std::isnan(x); }));
      EXPECT_FALSE(std::any_of(dqkv.begin(), dqkv.end(), [](float x) { return std::isnan(x); }));
      EXPECT_LT(difference(out, expected.out), 1e-5);
      EXPECT_LT(difference(dqkv, expected.dqkv), 1e-5);
    }
  }
}

}  // namespace
}  // namespace tessera
