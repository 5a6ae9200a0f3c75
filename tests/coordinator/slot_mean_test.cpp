// The mean over slots against plain loops in the order that is promised: equal bits for all shapes, cuts and
// numbers of threads.
#include "coordinator/slot_mean.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "base/parallel.h"
#include "base/random.h"
#include "coordinator/kernels/kernels.h"

namespace tessera {

namespace {

struct Case {
  ParamSpec spec;
  std::vector<float> start;
  std::vector<std::vector<float>> values;  ///< whole, per slot
  std::vector<std::vector<Rows>> brought;  ///< per slot
  std::int32_t average_over = 0;

  std::vector<std::vector<BroughtRows>> pieces() const {
    std::vector<std::vector<BroughtRows>> pieces;
    for (std::size_t k = 0; k < brought.size(); ++k) {
      auto& slot = pieces.emplace_back();
      for (const Rows& rows : brought[k]) {
        const auto width = static_cast<std::size_t>(spec.row_size());
        slot.push_back({rows, std::span(values[k]).subspan(static_cast<std::size_t>(rows.begin) * width,
                                                           static_cast<std::size_t>(rows.count()) * width)});
      }
    }
    return pieces;
  }
};

Case random_case(KeyedRandom& random, std::int64_t rows, std::int64_t width) {
  Case made;
  made.spec.name = "w";
  made.spec.shape = {rows, width};
  const auto draw = [&] {
    const double magnitude = std::exp2(static_cast<double>(random.below(60)) - 30);
    return static_cast<float>(random.chance(0.02) ? -0.0 : random.normal() * magnitude);
  };
  const auto size = static_cast<std::size_t>(rows * width);
  if (random.chance(0.8)) {
    for (std::size_t i = 0; i < size; ++i) made.start.push_back(draw());
  }
  if (random.chance(0.3)) made.average_over = 6;
  for (std::uint64_t k = 0; k < 1 + random.below(5); ++k) {
    auto& values = made.values.emplace_back();
    for (std::size_t i = 0; i < size; ++i) values.push_back(draw());
    auto& ranges = made.brought.emplace_back();
    for (std::int64_t begin = 0; begin < rows;) {
      const auto length = 1 + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(rows)));
      const std::int64_t end = std::min(rows, begin + length);
      if (random.chance(0.7)) ranges.push_back({begin, end});
      begin = end;
    }
  }
  return made;
}

bool equal_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

TEST(SlotMean, HasTheBitsOfPlainLoopsInSlotOrder) {
  const std::uint64_t seed = 20261126;
  KeyedRandom random(seed);
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{1, 1},    {5, 3},     {1000, 1}, {17, 33},
                                                          {9, 2500}, {130, 257}, {64, 700}, {70000, 1}};
  for (int round = 0; round < 40; ++round) {
    const auto [rows, width] = shapes[static_cast<std::size_t>(round) % std::size(shapes)];
    const Case made = random_case(random, rows, width);
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", round " << round);
    std::vector<double> mean(static_cast<std::size_t>(rows * width), NAN);
    std::vector<float> momentum(round % 3 == 0 ? 0 : static_cast<std::size_t>(rows * width));
    for (float& value : momentum) value = static_cast<float>(random.uniform() - 0.5);
    SlotMean taken(made.spec, {0, rows}, made.pieces(), made.start, made.average_over, mean, momentum);
    parallel_for(taken.blocks(), 1 + round % 4, [&](std::size_t block) { taken.take(block); });

    DeltaProducts expected_products;
    double absolute = 0;  // of the terms of d b, which cancel
    std::vector<std::int32_t> owners(static_cast<std::size_t>(rows));
    for (std::int64_t row = 0; row < rows; ++row) {
      std::vector<double> sum(static_cast<std::size_t>(width));
      double squares = 0;
      for (std::size_t k = 0; k < made.values.size(); ++k) {
        bool brings = false;
        for (const Rows& range : made.brought[k]) brings |= range.begin <= row && row < range.end;
        if (!brings) continue;
        ++owners[static_cast<std::size_t>(row)];
        double of_row = 0;
        for (std::int64_t i = 0; i < width; ++i) {
          const auto at = static_cast<std::size_t>(row * width + i);
          const double value = made.values[k][at];
          const double difference = made.start.empty() ? value : made.start[at] - value;
          sum[static_cast<std::size_t>(i)] += difference;
          of_row += difference * difference;
        }
        squares += of_row;
      }
      const std::int32_t m = owners[static_cast<std::size_t>(row)];
      ASSERT_NEAR(taken.squares_of({row, row + 1}), squares, 1e-12 * squares) << "row " << row;
      if (m == 0) continue;
      for (std::int64_t i = 0; i < width; ++i) {
        const double expected =
            sum[static_cast<std::size_t>(i)] / (made.average_over > 0 ? made.average_over : m);
        const auto at = static_cast<std::size_t>(row * width + i);
        const double b = momentum.empty() ? 0.0 : static_cast<double>(momentum[at]);
        expected_products.squares += expected * expected;
        expected_products.with_momentum += expected * b;
        expected_products.momentum_squares += b * b;
        absolute += std::abs(expected * b);
        ASSERT_TRUE(equal_bits(mean[static_cast<std::size_t>(row * width + i)], expected))
            << "row " << row << ", column " << i;
      }
    }
    // The same without storing the mean, which is then made again.
    SlotMean lean(made.spec, {0, rows}, made.pieces(), made.start, made.average_over, {}, momentum);
    for (std::size_t block = 0; block < lean.blocks(); ++block) lean.take(block);
    EXPECT_FALSE(lean.is_stored());
    lean.for_each_run([&](Rows run, std::int32_t m) {
      EXPECT_TRUE(equal_bits(lean.squares_of(run), taken.squares_of(run)));
      EXPECT_TRUE(equal_bits(lean.products_of(run).with_momentum, taken.products_of(run).with_momentum));
      if (m == 0) return;
      const auto maker = lean.maker_of(run);
      const std::span<const double> stored = taken.mean_of(run);
      std::vector<int> seen(stored.size());
      parallel_for(maker->blocks(), 1 + round % 4, [&](std::size_t block) {
        maker->make(block, [&](std::size_t begin, std::span<const double> delta) {
          for (std::size_t i = 0; i < delta.size(); ++i)
            seen[begin + i] += equal_bits(delta[i], stored[begin + i]) ? 1 : 1000;
        });
      });
      EXPECT_THAT(seen, testing::Each(1)) << "each element once, with the same bits";
    });
    const DeltaProducts products = taken.products_of({0, rows});
    EXPECT_NEAR(products.squares, expected_products.squares, 1e-12 * expected_products.squares);
    EXPECT_NEAR(products.with_momentum, expected_products.with_momentum, 1e-12 * absolute);
    EXPECT_NEAR(products.momentum_squares, expected_products.momentum_squares,
                1e-12 * expected_products.momentum_squares);
    taken.for_each_run([&](Rows run, std::int32_t m) {
      for (std::int64_t row = run.begin; row < run.end; ++row)
        EXPECT_EQ(owners[static_cast<std::size_t>(row)], m);
    });
  }
}

TEST(MergeKernels, HaveTheSameBitsAtEveryLevel) {
  KeyedRandom random(11);
  for (const std::size_t count : {1u, 8u, 15u, 512u, 1001u}) {
    std::vector<float> start(count), value(count);
    for (auto* values : {&start, &value})
      for (float& v : *values) v = static_cast<float>(random.normal());
    std::vector<std::vector<double>> of_levels;
    for (const MergeKernels* level : merge_kernels_levels()) {
      std::vector<double> sum(count), all;
      for (const float* from :
           {static_cast<const float*>(start.data()), static_cast<const float*>(nullptr)}) {
        for (const bool first : {true, false})
          all.push_back(level->add(from, value.data(), first, sum.data(), count));
      }
      level->scale(sum.data(), count, 1.0 / 3);
      all.insert(all.end(), sum.begin(), sum.end());
      of_levels.push_back(std::move(all));
    }
    for (const auto& level : of_levels) {
      for (std::size_t i = 0; i < level.size(); ++i) ASSERT_TRUE(equal_bits(level[i], of_levels[0][i])) << i;
    }
  }
}

}  // namespace
}  // namespace tessera
