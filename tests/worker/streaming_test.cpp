// Streaming in whole runs: torchft's fixtures number by number, and what it must be equal to.
#include <gmock/gmock.h>

#include "tests/worker/method_rig.h"

namespace tessera::testing {
namespace {

using ::testing::ElementsAreArray;
using ::testing::SizeIs;

/// Values of one parameter before steps 0, 1, ... of slot 0.
std::vector<float> path_of(const MethodRig& rig, std::size_t parameter, std::size_t steps) {
  std::vector<float> path;
  for (const auto& [step, values] : rig.seen->at({0})) {
    if (path.size() < steps) path.push_back(values.at(parameter));
  }
  return path;
}

/// Two scalar fragments of 1, -2 a step, outer sgd 2, every 6 steps.
std::unique_ptr<MethodRig> fixture(int tau, double alpha) {
  auto rig =
      std::make_unique<MethodRig>(MethodRun{.method = "streaming",
                                            .settings = {{"fragments", 2}, {"tau", tau}, {"alpha", alpha}},
                                            .context = {.steps = 6, .rule = "sgd", .lr = 2},
                                            .slope = 2,
                                            .inner_settings = {{"lr", 1.0}, {"weight_decay", 0.0}}});
  EXPECT_TRUE(rig->finish());
  return rig;
}

/// The values of the reference (section 3.3 b: torchft's fixtures with two replicas).
TEST(Streaming, GivesTheNumbersOfTorchftsFixtures) {
  struct Case {
    int tau;
    double alpha;
    std::vector<float> first, second;
    float global_first[2], global_second[2];  // after the first and second merge
  };
  const Case cases[] = {
      {0,
       0,
       {1, -1, -3, -11, -13, -15, -17, -19, -21, -35},
       {1, -1, -3, -5, -7, -9, -23, -25, -27, -29, -31, -33, -47},
       {-11, -35},
       {-23, -47}},
      {0,
       0.5,
       {1, -1, -3, -8, -10, -12, -14, -16, -18, -24.5f},
       {1, -1, -3, -5, -7, -9, -17, -19, -21, -23, -25, -27, -32},
       {-11, -29},
       {-23, -35}},
      {1,
       0,
       {1, -1, -3, -7, -9, -11, -13, -15, -17, -27, -29, -31, -33, -35, -37, -47},
       {1, -1, -3, -5, -7, -9, -19, -21, -23, -25, -27, -29, -39},
       {-7, -27},
       {-19, -39}},
      {1,
       0.5,
       {1, -1, -3, -6, -8, -10, -12, -14, -16, -21.5f, -23.5f, -25.5f, -27.5f, -29.5f, -31.5f, -35.75f},
       {1, -1, -3, -5, -7, -9, -15, -17, -19, -21, -23, -25, -29},
       {-7, -25},
       {-19, -31}},
      {1,
       1,
       {1, -1, -3, -5, -7, -9, -11, -13, -15, -17, -19, -21, -23, -25, -27, -29},
       {1, -1, -3, -5, -7, -9, -11, -13, -15, -17, -19, -21, -23},
       {-7, -23},
       {-19, -23}},
  };
  for (const Case& expected : cases) {
    SCOPED_TRACE(::testing::Message() << "tau " << expected.tau << ", alpha " << expected.alpha);
    const auto run = fixture(expected.tau, expected.alpha);
    const MethodRig& rig = *run;
    EXPECT_THAT(path_of(rig, 0, expected.first.size()), ElementsAreArray(expected.first));
    EXPECT_THAT(path_of(rig, 1, expected.second.size()), ElementsAreArray(expected.second));
    EXPECT_EQ(rig.committed(0, 2, "layers.0.w")[0], expected.global_first[1]);
    EXPECT_EQ(rig.committed(1, 2, "layers.1.w")[0], expected.global_second[1]);
  }
}

}  // namespace
}  // namespace tessera::testing
