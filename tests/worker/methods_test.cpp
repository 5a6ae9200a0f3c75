// Every method in whole runs: neither the number of workers nor anybody's death changes a bit; and what
// methods have to be equal to.
#include <gmock/gmock.h>

#include "tests/worker/method_rig.h"

namespace tessera::testing {
namespace {

struct Case {
  std::string name;
  MethodRun run;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

const std::vector<ParamSpec> some_specs{
    {"layers.0.w", {4}}, {"layers.1.w", {4, 2}}, {"layers.2.w", {2, 2}}, {"embed", {3}}};

/// Four slots; of layer 0 and 1, even slots own the first rows and odd ones the others.
MethodRun cut_run(MethodRun run, bool fast = false, std::int32_t slots = 4) {
  run.specs = some_specs;
  run.slots = slots;
  run.inner = "adamw";
  run.inner_settings = {{"lr", 0.1}};
  run.cut = {"layers.0.w", "layers.1.w"};
  run.keeps_fast = fast;
  run.fast_for_all = fast && slots > 2;
  run.owned = [](SlotId slot) {
    const Rows half = slot.value % 2 == 0 ? Rows{0, 2} : Rows{2, 4};
    return RowSet{
        {"layers.0.w", {half}}, {"layers.1.w", {half}}, {"layers.2.w", {{0, 2}}}, {"embed", {{0, 3}}}};
  };
  return run;
}

MethodRun streaming(int fragments, int tau, double alpha) {
  return {.method = "streaming",
          .settings = {{"fragments", fragments}, {"tau", tau}, {"alpha", alpha}},
          .context = {.steps = 6, .lr = 0.5, .momentum = 0.5}};
}

MethodRun eager(double momentum) {
  return {.method = "eager",
          .context = {.steps = 3, .lr = 0.5, .momentum = momentum, .cut = OuterStep{0.25, 0.5}}};
}

MethodRun sparseloco() {
  return {.method = "sparseloco", .settings = {{"density", 0.25}}, .context = {.steps = 3, .lr = 1}};
}

MethodRun des_loc(int first_every, int second_every) {
  return {.method = "des_loc",
          .settings = {{"first_every", first_every}, {"second_every", second_every}},
          .context = {.steps = 3, .lr = 1},
          .moments = {"exp_avg", "exp_avg_sq"}};
}

MethodRun sparta(double share, int diloco_every, double lr = 1) {
  return {.method = "sparta",
          .settings = {{"share", share}, {"diloco_every", diloco_every}},
          .context = {.steps = 1, .lr = lr, .momentum = 0.5, .seed = 3}};
}

const Case cases[] = {
    {"diloco", cut_run({.context = {.steps = 3, .lr = 0.5}})},
    {"diloco_adam",
     cut_run({.context = {.steps = 3, .rule = "adam", .lr = 0.1, .weight_decay = 0.1, .restart_every = 2}})},
    {"local_sgd", cut_run({.method = "local_sgd", .context = {.steps = 3, .lr = 1}})},
    {"eager", cut_run(eager(0.5))},
    {"sparseloco", cut_run(sparseloco())},
    {"des_loc", cut_run(des_loc(1, 2))},
    {"sparta", cut_run(sparta(0.3, 0))},
    {"sparta_and_diloco", cut_run(sparta(0.3, 3, 0.5))},
    {"streaming", cut_run(streaming(2, 0, 0))},
    {"streaming_overlapped", cut_run(streaming(3, 1, 0))},
    {"streaming_mixed", cut_run(streaming(2, 2, 0.25))},
    {"streaming_one_owner_keeps_its_values", cut_run(streaming(2, 1, 0.5), true, 2)},
    {"streaming_owners_share_fast_values", cut_run(streaming(2, 1, 0.5), true)},
};

class Methods : public ::testing::TestWithParam<Case> {};

TEST_P(Methods, NeitherWorkersNorDeathsChangeABit) {
  expect_the_same_whoever_dies(GetParam().run);
}

INSTANTIATE_TEST_SUITE_P(Runs, Methods, ::testing::ValuesIn(cases),
                         [](const auto& info) { return info.param.name; });

std::vector<std::string> story_of(const MethodRun& run) {
  MethodRig rig(run);
  EXPECT_TRUE(rig.finish());
  return rig.story();
}

MethodRun as(MethodRun run, const std::string& method, Json settings = Json::object()) {
  run.method = method;
  run.settings = std::move(settings);
  return run;
}

TEST(Identities, StreamingOfOneFragmentWithoutOverlapIsDiLoCoToTheHash) {
  for (const MethodRun& run : {cut_run(streaming(1, 0, 0)), cut_run(streaming(1, 0, 0), true)})
    EXPECT_EQ(story_of(run), story_of(as(run, "diloco")));
}

TEST(Identities, EachFragmentOfStreamingFollowsDiLoCoAtItsOwnTime) {
  // Numbers that do not meet in the loss: the second fragment, whose time is the end of the H steps, must not
  // notice that the first has another one.
  MethodRun run = streaming(2, 0, 0);
  run.rounds = 4;
  MethodRig streamed(run), plain(as(run, "diloco"));
  ASSERT_TRUE(streamed.finish() && plain.finish());
  for (std::int64_t version : {3, 4}) {
    for (const std::string name : {"layers.1.w", "momentum/layers.1.w"})
      EXPECT_EQ(streamed.committed(1, version, name), plain.committed(0, version, name)) << name;
  }
  EXPECT_NE(streamed.committed(0, 4, "layers.0.w"), plain.committed(0, 4, "layers.0.w"));
}

TEST(Identities, IdenticalSlotsAreOneSlot) {
  MethodRun run = streaming(2, 1, 0.5);
  run.same_data = true;
  for (std::int32_t slots : {2, 3, 5}) {
    MethodRun many = run, one = run;
    many.slots = slots;
    one.slots = 1;
    MethodRig a(many), b(one);
    ASSERT_TRUE(a.finish() && b.finish());
    EXPECT_EQ(a.committed(0, 3, "layers.0.w"), b.committed(0, 3, "layers.0.w")) << slots;
    EXPECT_EQ(a.committed(1, 3, "layers.1.w"), b.committed(1, 3, "layers.1.w")) << slots;
  }
}

TEST(Identities, WithRateOneOneSlotTrainsAsIfThereWereNoMerges) {
  MethodRun run = streaming(2, 0, 0);
  run.slots = 1;
  run.context.rule = "sgd";
  run.context.lr = 1;
  MethodRun never = run;
  never.settings["alpha"] = 1;  // what is merged never reaches the slot
  MethodRig merged(run), plain(never);
  ASSERT_TRUE(merged.finish() && plain.finish());
  EXPECT_EQ(merged.seen->at({0}), plain.seen->at({0}));
}

TEST(Identities, WithAlphaOneASlotNeverNoticesTheMerges) {
  MethodRun first = streaming(2, 1, 1), second = streaming(2, 1, 1);
  second.context.lr = 7;
  MethodRig a(first), b(second);
  ASSERT_TRUE(a.finish() && b.finish());
  EXPECT_EQ(*a.seen, *b.seen);
  EXPECT_NE(a.story(), b.story());
}

TEST(Identities, LocalSgdIsDiLoCoWithSgdAtRateOne) {
  MethodRun run = cut_run({.context = {.steps = 3, .rule = "sgd", .lr = 1}});
  EXPECT_EQ(story_of(as(run, "local_sgd")), story_of(run));
}

TEST(Identities, EagerWithOneSlotIsDiLoCo) {
  MethodRun run = eager(0.8);
  run.slots = 1;
  run.rounds = 6;
  MethodRig ahead(run), waits(as(run, "diloco"));
  ASSERT_TRUE(ahead.finish() && waits.finish());
  for (const auto& [step, values] : waits.seen->at({0})) {
    for (std::size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(ahead.seen->at({0}).at(step)[i], values[i], 2e-6) << "step " << step;
  }
}

/// The paper's own recursion, on M replicas with an outer optimizer each, in double precision.
TEST(Identities, EagerIsThePapersRecursion) {
  constexpr int slots = 3, rounds = 6, steps = 3;
  const double lr = 0.5, mu = 0.8, inner = 0.25;
  MethodRun run = eager(mu);
  run.slots = slots;
  run.rounds = rounds;
  run.specs = {{"layers.0.w", {1}}};
  MethodRig rig(run);
  ASSERT_TRUE(rig.finish());
  const Positions data;
  double theta[slots], momentum[slots] = {}, before[slots] = {}, mean_before = 0;
  std::fill(theta, theta + slots, 1.0);
  for (int round = 0; round < rounds; ++round) {
    double delta[slots], mean = 0;
    for (std::int32_t k = 0; k < slots; ++k) {
      double w = theta[k];
      for (int h = 0; h < steps; ++h) {
        const auto step = static_cast<std::uint64_t>(round * steps + h);
        EXPECT_NEAR(rig.seen->at({k}).at(static_cast<std::int64_t>(step))[0], w, 2e-6)
            << "slot " << k << " step " << step;
        w -=
            inner * (w - static_cast<double>(data.train({k}, step, 1).tensors.at("position").as<float>()[2]));
      }
      delta[k] = theta[k] - w;
      mean += delta[k] / slots;
    }
    for (int k = 0; k < slots; ++k) {
      const double fed = mean_before + (delta[k] - before[k]) / slots;
      momentum[k] = mu * momentum[k] + fed;
      theta[k] -= lr * (fed + mu * momentum[k]);
      before[k] = delta[k];
    }
    mean_before = mean;
  }
}

TEST(Streaming, CarriesTheLargestFragmentsShareAtOnce) {
  const auto largest = [](const MethodRun& run) {
    MethodRig rig(run);
    EXPECT_TRUE(rig.finish());
    std::uint64_t most = 0;
    for (const Json& row : rig.rows()) most = std::max(most, row["bytes_up"].get<std::uint64_t>());
    return most;
  };
  MethodRun run = streaming(4, 1, 0.5);
  run.context.steps = 8;
  run.specs.clear();
  for (int layer = 0; layer < 8; ++layer)
    run.specs.push_back({"layers." + std::to_string(layer) + ".w", {layer < 4 ? 2000 : 1000}});
  // Of 12 thousand elements, fragments of layers p and p + 4 have 3 each; two neighbours at the front have 4.
  const double all = static_cast<double>(largest(as(run, "diloco")));
  EXPECT_NEAR(static_cast<double>(largest(run)) / all, 3.0 / 12, 0.005);
  run.settings["pattern"] = "sequential";
  EXPECT_NEAR(static_cast<double>(largest(run)) / all, 4.0 / 12, 0.005);
}

}  // namespace
}  // namespace tessera::testing
