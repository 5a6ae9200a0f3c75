// The simulator against closed forms (reference/partial-updates-and-diloco.md, section 4.2) and against what
// must hold for any cluster.
#include "launch/simulate/simulate.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <random>

#include "launch/simulate/axis.h"

namespace tessera {
namespace {

constexpr double P = 1e6, bytes = 4, step = 0.3;  // parameters, per parameter, seconds
constexpr std::int32_t layers = 4;

Workload work_of(const MethodShape& shape, double workers = 2) {
  return with_workers(workload_of(layers_of(ModelSize{"", P, layers, step}), shape), workers);
}
MethodShape shape_of(const std::string& method, std::int64_t steps, bool by_layer = false) {
  return {.method = method, .steps = steps, .bytes_up = bytes, .bytes_down = bytes, .by_layer = by_layer};
}
/// Bits per second that move all parameters in so many seconds.
double rate_for(double seconds) {
  return P * bytes * 8 / seconds;
}

TEST(Simulate, DilocoComputesThenSendsThenHears) {
  const Cluster cluster{.flops_per_second = 1,
                        .up_bits = rate_for(2),
                        .down_bits = rate_for(0.5),
                        .latency_seconds = 0.1,
                        .messages_up = 3,
                        .messages_down = 2,
                        .merge_seconds = 0.7};
  const Outcome outcome = simulate(work_of(shape_of("diloco", 10)), cluster);
  EXPECT_NEAR(outcome.seconds, 10 * step + 2 + 0.3 + 0.7 + 0.5 + 0.2, 1e-9);
  EXPECT_NEAR(outcome.compute_utilisation(), 3 / 6.7, 1e-9);
  EXPECT_DOUBLE_EQ(outcome.bytes_up, P * bytes);
}

TEST(Simulate, TheCoordinatorsLinkIsSharedByAllWorkers) {
  Cluster cluster{.flops_per_second = 1, .up_bits = rate_for(1), .down_bits = rate_for(1)};
  cluster.server_bits = rate_for(0.01);  // a hundred workers' worth in a second
  for (const double workers : {1.0, 50.0, 100.0, 250.0, 10000.0}) {
    const Outcome outcome = simulate(work_of(shape_of("diloco", 10), workers), cluster);
    EXPECT_NEAR(outcome.seconds, 10 * step + 2 * std::max(1.0, workers * 0.01), 1e-6) << workers;
  }
}

TEST(Simulate, ARingMovesTwiceAllButOneKthAndAServerDoesNotGrowWithTheWorkers) {
  for (const double workers : {2.0, 4.0, 64.0}) {
    Cluster cluster{
        .flops_per_second = 1, .up_bits = rate_for(1), .down_bits = rate_for(1), .latency_seconds = 0.01};
    EXPECT_NEAR(simulate(work_of(shape_of("diloco", 10), workers), cluster).seconds, 10 * step + 2.02, 1e-9);
    cluster.topology = Topology::ring;
    const double ring = 2 * (workers - 1) / workers, latency = 2 * (workers - 1) * 0.01;
    EXPECT_NEAR(simulate(work_of(shape_of("diloco", 10), workers), cluster).seconds,
                10 * step + ring + latency, 1e-9);
    cluster.full_duplex = false;
    EXPECT_NEAR(simulate(work_of(shape_of("diloco", 10), workers), cluster).seconds,
                10 * step + 2 * ring + latency, 1e-9);
  }
}

TEST(Simulate, OverlapHidesTauSteps) {
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    const std::int64_t steps = 4 + static_cast<std::int64_t>(random() % 30);
    MethodShape shape = shape_of("streaming", steps);
    shape.layers_per_fragment = layers;  // one fragment
    shape.overlap = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(steps));
    const double sync = static_cast<double>(random() % 1000) / 1000 * static_cast<double>(steps) * step;
    const Cluster cluster{.flops_per_second = 1,
                          .topology = Topology::ring,
                          .up_bits = rate_for(sync + 1e-9),
                          .down_bits = rate_for(sync + 1e-9)};
    const double stall = std::max(0.0, sync - static_cast<double>(shape.overlap) * step);
    EXPECT_NEAR(simulate(work_of(shape), cluster).seconds, static_cast<double>(steps) * step + stall, 1e-6)
        << "seed 7, case " << i << ": H " << steps << ", tau " << shape.overlap << ", sync " << sync;
  }
}

TEST(Simulate, EagerHidesAWholeRound) {
  for (const double sync : {0.1, 2.9, 3.1, 8.0}) {
    const Cluster cluster{.flops_per_second = 1,
                          .topology = Topology::ring,
                          .up_bits = rate_for(sync),
                          .down_bits = rate_for(sync)};
    EXPECT_NEAR(simulate(work_of(shape_of("eager", 10)), cluster).seconds, std::max(10 * step, sync), 1e-9);
  }
}

TEST(Simulate, BucketsLeaveDuringTheBackwardPass) {
  const double forward = step / 3, backward = step * 2 / 3, per_layer = backward / layers;
  for (const double sync : {0.01, 0.1, 0.5, 3.0}) {
    const Cluster cluster{.flops_per_second = 1,
                          .topology = Topology::ring,
                          .up_bits = rate_for(sync),
                          .down_bits = rate_for(sync)};
    // A fast link is done with each layer before the next: only the first layer's share is waited for. On a
    // slow one, all but the last layer's backward pass is hidden behind sending.
    const double bucket = sync / layers;
    const double expected = bucket <= per_layer ? forward + backward + bucket : forward + per_layer + sync;
    EXPECT_NEAR(simulate(work_of(shape_of("data_parallel", 1, true)), cluster).seconds, expected, 1e-9)
        << sync;
    EXPECT_NEAR(simulate(work_of(shape_of("data_parallel", 1, false)), cluster).seconds, step + sync, 1e-9);
  }
}

TEST(Simulate, PartialUpdatesSaveWeightGradientsAndUploads) {
  MethodShape shape = shape_of("partial", 10);
  shape.trained = 0.25;
  const Cluster cluster{.flops_per_second = 1, .up_bits = rate_for(1), .down_bits = rate_for(1)};
  const Outcome outcome = simulate(work_of(shape), cluster);
  EXPECT_NEAR(outcome.compute_seconds, 10 * step * (1 - 0.75 / 3), 1e-9);
  EXPECT_NEAR(outcome.seconds, outcome.compute_seconds + 0.25 + 1, 1e-9);
}

TEST(Simulate, TheSlowestWorkerIsWaitedFor) {
  const Workload work = with_workers(work_of(shape_of("diloco", 10)), 6, {1, 0.5, 0.25});
  const Outcome outcome =
      simulate(work, {.flops_per_second = 1, .up_bits = rate_for(1), .down_bits = rate_for(1)});
  EXPECT_NEAR(outcome.seconds, 10 * step / 0.25 + 2, 1e-9);
  EXPECT_NEAR(outcome.compute_seconds, 10 * step * (1 + 2 + 4) / 3, 1e-9) << "mean of the workers";
}

/// Some cluster and method; what it is, for the message of a failure.
struct Case {
  Workload work;
  Cluster cluster;
  std::string text;
};
Case random_case(std::mt19937& random) {
  const auto pick = [&](std::uint32_t n) { return random() % n; };
  MethodShape shape =
      shape_of(shape_methods()[pick(5)], 1 + static_cast<std::int64_t>(pick(20)), pick(2) == 0);
  shape.layers_per_fragment = 1 + static_cast<std::int32_t>(pick(3));
  shape.overlap = pick(static_cast<std::uint32_t>(shape.steps));
  shape.trained = 0.3;
  Case some;
  some.work =
      with_workers(work_of(shape), 1 + pick(9), pick(2) == 0 ? std::vector<double>{1} : std::vector{1, 0.6});
  some.cluster = {.flops_per_second = 1,
                  .topology = pick(2) == 0 ? Topology::server : Topology::ring,
                  .up_bits = rate_for(0.01 + pick(500) / 100.0),
                  .down_bits = rate_for(0.01 + pick(500) / 100.0),
                  .server_bits = pick(2) == 0 ? 0 : rate_for(0.001 + pick(50) / 100.0),
                  .latency_seconds = pick(3) * 0.05,
                  .full_duplex = pick(2) == 0};
  some.text = shape.method + " H " + std::to_string(shape.steps) + " tau " + std::to_string(shape.overlap);
  return some;
}

TEST(Simulate, MoreBandwidthNeverLowersUtilisationAndItStaysBetween0And1) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int i = 0; i < 300; ++i) {
    Case some = random_case(random);
    double before = 0;
    for (int k = 0; k < 12; ++k) {
      const double now = simulate(some.work, some.cluster).compute_utilisation();
      ASSERT_GE(now, before - 1e-9) << "seed " << seed << ", case " << i << ": " << some.text;
      ASSERT_LE(now, 1 + 1e-9);
      before = now;
      some.cluster.up_bits *= 1.5;
      some.cluster.down_bits *= 1.5;
      some.cluster.server_bits *= 1.5;
    }
    some.cluster.up_bits = some.cluster.down_bits = some.cluster.server_bits = 0;
    some.cluster.latency_seconds = 0;
    if (some.work.groups.size() == 1) {
      ASSERT_NEAR(simulate(some.work, some.cluster).compute_utilisation(), 1, 1e-9) << "nothing to wait for";
    }
  }
}

TEST(Simulate, OneOfAGroupStandsForAll) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int i = 0; i < 100; ++i) {
    Case some = random_case(random);
    some.cluster.server_bits = 0;  // apart from the shared link, which a group shares fairly, others in turn
    const double together = simulate(some.work, some.cluster).seconds;
    Workload apart = some.work;
    apart.groups.clear();
    for (WorkerGroup group : some.work.groups) {
      group.workers /= 2;
      apart.groups.insert(apart.groups.end(), 2, group);
    }
    ASSERT_NEAR(simulate(apart, some.cluster).seconds, together, 1e-9 * together)
        << "seed " << seed << ", case " << i << ": " << some.text;
  }
}

TEST(Simulate, TenThousandWorkersTakeSeconds) {
  const std::clock_t start = std::clock();  // of the processor: other work on the machine does not count
  const std::vector<double> all_workers = *parse_axis("workers", "2..10000", 10);
  const std::vector<double> bandwidths = *parse_axis("bandwidth", "1M..1T", 25);
  for (const std::string& method : shape_methods()) {
    MethodShape shape{.method = method};
    const Workload one = workload_of(layers_of(*parse_model_size("100B")), shape);
    for (const double workers : all_workers) {
      const Workload work = with_workers(one, workers, {1, 0.9, 0.8, 0.7});
      for (const double bits : bandwidths) {
        const Cluster cluster{.flops_per_second = 1, .up_bits = bits, .down_bits = bits, .server_bits = 1e12};
        ASSERT_GT(simulate(work, cluster).compute_utilisation(), 0);
      }
    }
  }
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 10)
      << "five times the goal of 2 s for 1250 simulations of 100B";
}

TEST(Axis, UnderstandsUnitsListsAndRanges) {
  EXPECT_EQ(*parse_axis("x", "10M,1.5Gbit/s,10ms,7", 2), (std::vector<double>{1e7, 1.5e9, 0.01, 7}));
  const std::vector<double> range = *parse_axis("x", "1k..1M", 4);
  ASSERT_EQ(range.size(), 4u);
  EXPECT_NEAR(range[1], 1e4, 1e-6);
  EXPECT_NEAR(range[3], 1e6, 1e-6);
  for (const char* wrong : {"", "fast", "1X", "-1", "0..5", "5..1", "1M..", "nan"})
    EXPECT_FALSE(parse_axis("x", wrong, 5).ok()) << wrong;
  EXPECT_EQ(quantity_text(5e7), "50M");
}

TEST(ModelSize, IsOneOfThePaperOrThreeNumbers) {
  EXPECT_EQ(parse_model_size("10B")->layers, 48);
  const ModelSize own = *parse_model_size("1.3B:24:0.15");
  EXPECT_EQ(own.parameters, 1.3e9);
  EXPECT_EQ(own.step_seconds, 0.15);
  for (const char* wrong : {"2B", "1B:24", "1B:2.5:1", "1B:0:1", "1B:24:0", "1B:24:1:1"})
    EXPECT_FALSE(parse_model_size(wrong).ok()) << wrong;
}

}  // namespace
}  // namespace tessera
