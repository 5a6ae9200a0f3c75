// sparseloco, des_loc and sparta in whole runs: each against its paper's recursion in double precision, and
// against what it has to be equal to. Deaths: methods_test.cpp.
#include <gmock/gmock.h>

#include <cmath>

#include "optim/gradient_step.h"
#include "tests/worker/method_rig.h"

namespace tessera::testing {
namespace {

const std::vector<ParamSpec> some_specs{{"layers.0.w", {4}}, {"layers.1.w", {4, 2}}, {"embed", {3}}};

std::vector<std::string> story_of(const MethodRun& run) {
  MethodRig rig(run);
  EXPECT_TRUE(rig.finish());
  return rig.story();
}

MethodRun plain(const std::string& method, std::int64_t steps) {
  return {.method = method, .context = {.steps = steps, .rule = "sgd", .lr = 1}, .specs = some_specs};
}

MethodRun with(MethodRun run, Json settings) {
  run.settings = std::move(settings);
  return run;
}

/// What slot k's gradient is from before `step`: parameters less this.
double target(std::int32_t slot, std::int64_t step) {
  const Positions data;
  const Batch batch = data.train({slot}, static_cast<std::uint64_t>(step), 1);
  return static_cast<double>(batch.tensors.at("position").as<float>()[2]);
}

void expect_near(const std::vector<float>& values, const std::vector<double>& expected,
                 const std::string& where) {
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_NEAR(values[i], expected[i], 2e-6) << where << ", coordinate " << i;
}

TEST(SparseLoco, IsThePapersRecursion) {
  constexpr int slots = 3, rounds = 8, steps = 2, width = 4;
  const double beta = 0.75, alpha = 0.5, inner = 0.25;
  MethodRun run = with(plain("sparseloco", steps),
                       {{"density", 0.5}, {"chunk", 2}, {"value_bits", 32}, {"feedback", beta}});
  run.context.lr = alpha;
  run.slots = slots;
  run.rounds = rounds;
  run.specs = {{"layers.0.w", {width}}};
  MethodRig rig(run);
  ASSERT_TRUE(rig.finish());
  std::vector<double> theta(width, 1.0);
  std::vector<std::vector<double>> e(slots, std::vector<double>(width));
  for (int round = 0; round < rounds; ++round) {
    std::vector<double> mean(width);
    for (std::int32_t k = 0; k < slots; ++k) {
      std::vector<double> w = theta;
      for (int h = 0; h < steps; ++h) {
        const std::int64_t step = round * steps + h;
        expect_near(rig.seen->at({k}).at(step), w, detail::describe("slot ", k, " step ", step));
        for (double& x : w) x -= inner * (x - target(k, step));
      }
      for (int i = 0; i < width; ++i) e[k][i] = beta * e[k][i] + theta[i] - w[i];
      for (int i = 0; i < width; i += 2) {  // of two the larger, of equal ones the first
        const int sent = std::abs(e[k][i + 1]) > std::abs(e[k][i]) * (1 + 1e-6) ? i + 1 : i;
        mean[sent] += e[k][sent] / slots;
        e[k][sent] = 0;
      }
    }
    for (int i = 0; i < width; ++i) theta[i] -= alpha * mean[i];
  }
}

TEST(SparseLoco, WithEverythingSentAsItIsIsLocalSgd) {
  MethodRig dense(plain("local_sgd", 3));
  MethodRig sparse(with(plain("sparseloco", 3), {{"density", 1.0}, {"value_bits", 32}}));
  ASSERT_TRUE(dense.finish() && sparse.finish());
  for (const ParamSpec& spec : some_specs) {
    const auto a = dense.committed(0, 3, spec.name), b = sparse.committed(0, 3, spec.name);
    // Changes are rounded to fp32 once, where local_sgd takes them in fp64.
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-7) << spec.name;
  }
}

TEST(SparseLoco, SendsTheBytesThatWereCounted) {
  MethodRun dense = plain("local_sgd", 3), sparse = plain("sparseloco", 3);
  dense.specs = sparse.specs = {{"layers.0.w", {4096 * 5}}, {"layers.1.w", {100, 100}}};
  const auto up = [](const MethodRun& run) {
    MethodRig rig(run);
    EXPECT_TRUE(rig.finish());
    return rig.rows().back()["bytes_up"].get<double>();
  };
  // 64 of 4096 in 12 + 2 bits, of 10000 - 2 x 4096 values 29, and a codebook per tensor.
  const double floats = 2 * 4 * (4096 * 5 + 10000), coded = 2 * (7 * (96 + 16) + (44 + 8) + 2 * 16);
  const double header = up(dense) - floats;
  EXPECT_NEAR(up(sparse) - header, coded, 2 * 64) << "the same header but for a few digits";
}

TEST(DesLoc, WithEveryMergeAveragingEverythingIsLocalAdam) {
  constexpr int slots = 3, rounds = 4, steps = 2;
  const double lr = 0.1, beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  MethodRun run = with(plain("des_loc", steps), {{"first_every", 1}, {"second_every", 1}});
  run.specs = {{"layers.0.w", {1}}};
  run.slots = slots;
  run.rounds = rounds;
  run.inner = "adam";
  run.inner_settings = {{"lr", lr}};
  run.moments = {"exp_avg", "exp_avg_sq"};
  MethodRig rig(run);
  ASSERT_TRUE(rig.finish());
  double w[slots], m[slots] = {}, v[slots] = {};
  std::fill(w, w + slots, 1.0);
  for (int step = 0; step < rounds * steps; ++step) {
    for (std::int32_t k = 0; k < slots; ++k) {
      EXPECT_NEAR(rig.seen->at({k}).at(step)[0], w[k], 2e-6) << "slot " << k << " step " << step;
      const double g = w[k] - target(k, step);
      m[k] += (1 - beta1) * (g - m[k]);
      v[k] = beta2 * v[k] + (1 - beta2) * g * g;
      w[k] -= lr * m[k] / (1 - std::pow(beta1, step + 1)) /
              (std::sqrt(v[k] / (1 - std::pow(beta2, step + 1))) + eps);
    }
    if ((step + 1) % steps != 0) continue;
    for (double* all : {w, m, v}) std::fill(all, all + slots, (all[0] + all[1] + all[2]) / slots);
  }
}

MethodRun adamw(MethodRun run) {
  run.inner = "adamw";
  run.inner_settings = {{"lr", 0.1}};
  run.moments = {"exp_avg", "exp_avg_sq"};
  return run;
}

TEST(DesLoc, MomentsAreAveragedWithTheirOwnPeriods) {
  MethodRun run = adamw(with(plain("des_loc", 2), {{"first_every", 2}, {"second_every", 3}}));
  const std::map<std::string, std::set<std::int64_t>> moves{{"moment.exp_avg/embed", {2, 4, 6}},
                                                            {"moment.exp_avg_sq/embed", {3, 6}}};
  std::map<std::string, std::vector<float>> before;
  for (const auto& [name, versions] : moves) before[name].resize(3);
  std::vector<double> up{0};
  for (run.rounds = 1; run.rounds <= 6; ++run.rounds) {
    MethodRig rig(run);
    ASSERT_TRUE(rig.finish());
    for (const auto& [name, versions] : moves) {
      const std::vector<float> now = rig.committed(0, run.rounds, name);
      EXPECT_EQ(now != before[name], versions.contains(run.rounds)) << name << " " << run.rounds;
      before[name] = now;
    }
    up.push_back(rig.rows().back()["bytes_up"].get<double>());
  }
  // 15 floats of two slots, with one of the moments or both; all else is headers.
  EXPECT_EQ(up[5], up[1]);
  EXPECT_GE(up[2] - up[1], 2 * 4 * 15);
  EXPECT_GE(up[6] - up[2], 2 * 4 * 15);
}

TEST(DesLoc, WithoutMomentsIsLocalSgdToTheHash) {
  EXPECT_EQ(story_of(adamw(with(plain("des_loc", 3), {{"first_every", 0}, {"second_every", 0}}))),
            story_of(adamw(plain("local_sgd", 3))));
}

TEST(DesLoc, TheRowsOfOneOwnerTrainAsIfAlone) {
  // Whole tensors that two slots divide: the mean over one owner is its own value, of moments too.
  MethodRun run = adamw(with(plain("des_loc", 2), {{"first_every", 1}, {"second_every", 1}}));
  run.cut = {"layers.0.w", "embed"};
  run.specs = {{"layers.0.w", {4}}, {"embed", {3}}};
  run.owned = [](SlotId slot) {
    return slot.value == 0 ? RowSet{{"layers.0.w", {{0, 4}}}} : RowSet{{"embed", {{0, 3}}}};
  };
  MethodRun never = with(run, {{"first_every", 0}, {"second_every", 0}});
  MethodRig averaged(run), alone(never);
  ASSERT_TRUE(averaged.finish() && alone.finish());
  EXPECT_EQ(*averaged.seen, *alone.seen);
}

TEST(Sparta, OfEverythingIsLocalSgdToTheHash) {
  EXPECT_EQ(story_of(with(plain("sparta", 2), {{"share", 1.0}})), story_of(plain("local_sgd", 2)));
}

TEST(Sparta, WithOuterStepsAloneIsDiLoCo) {
  MethodRun run = with(plain("sparta", 2), {{"diloco_every", 1}}), diloco = plain("diloco", 2);
  for (MethodRun* of : {&run, &diloco}) {
    of->context.rule = "nesterov";
    of->context.lr = 0.5;
    of->context.momentum = 0.5;
  }
  MethodRig a(run), b(diloco);
  ASSERT_TRUE(a.finish() && b.finish());
  for (const std::string name : {"layers.1.w", "momentum/layers.1.w"})
    EXPECT_EQ(a.committed(0, 3, name), b.committed(0, 3, name));
}

/// Parameters of every slot, as exo-gym's strategy has it: average what is drawn; every fourth time all, from
/// which an outer step goes, seen from where the last one arrived.
void expect_sparta(std::int64_t diloco_every) {
  constexpr int slots = 3, rounds = 13, width = 20;
  const double inner = 0.25, lr = 0.5, mu = 0.5;
  MethodRun run = with(plain("sparta", 1), {{"share", 0.2}, {"diloco_every", diloco_every}});
  run.slots = slots;
  run.rounds = rounds;
  run.specs = {{"layers.0.w", {width}}};
  run.context.seed = 7;
  if (diloco_every > 0) run.context.rule = "nesterov", run.context.lr = lr, run.context.momentum = mu;
  MethodRig rig(run);
  ASSERT_TRUE(rig.finish());
  std::vector<std::vector<double>> w(slots, std::vector<double>(width, 1.0));
  std::vector<double> anchor(width, 1.0), momentum(width);
  for (std::int64_t step = 0; step < rounds; ++step) {
    for (std::int32_t k = 0; k < slots; ++k) {
      expect_near(rig.seen->at({k}).at(step), w[k], detail::describe("slot ", k, " step ", step));
      for (double& x : w[k]) x -= inner * (x - target(k, step));
    }
    const auto mean = [&](std::size_t i) { return (w[0][i] + w[1][i] + w[2][i]) / slots; };
    const auto drawn = rig.method().coordinates(step + 1, run.specs[0], {0, width});
    ASSERT_EQ(drawn.has_value(), diloco_every == 0 || (step + 1) % diloco_every != 0);
    for (std::int64_t i : drawn.value_or(tessera::Positions{})) {
      const double value = mean(static_cast<std::size_t>(i));
      for (auto& own : w) own[static_cast<std::size_t>(i)] = value;
    }
    for (std::size_t i = 0; i < width && !drawn; ++i) {
      const double delta = anchor[i] - mean(i);
      momentum[i] = mu * momentum[i] + delta;
      anchor[i] -= lr * (delta + mu * momentum[i]);
      for (auto& own : w) own[i] = anchor[i];
    }
  }
}

TEST(Sparta, AveragesWhatIsDrawn) {
  expect_sparta(0);
}
TEST(Sparta, MakesDiLoCosOuterStepFromWhereTheLastOneArrived) {
  expect_sparta(4);
}

TEST(Sparta, SendsTheDrawnCoordinatesAloneBothWays) {
  MethodRun run = with(plain("sparta", 1), {{"share", 0.01}}), all = plain("local_sgd", 1);
  run.rounds = all.rounds = 4;
  run.specs = all.specs = {{"layers.0.w", {100, 100}}, {"embed", {5000}}};
  MethodRig sparse(run), dense(all);
  ASSERT_TRUE(sparse.finish() && dense.finish());
  const auto bytes = [](const MethodRig& rig, const char* way) { return rig.rows()[2][way].get<double>(); };
  const double floats = 4 * 15000;
  EXPECT_NEAR(bytes(sparse, "bytes_up") - (bytes(dense, "bytes_up") - 2 * floats), 2 * 4 * 150, 2 * 64);
  EXPECT_NEAR(bytes(sparse, "bytes_down") - (bytes(dense, "bytes_down") - floats), 4 * 150, 3 * 64)
      << "and the number of the version";
}

/// K slots, H = 1, inner sgd, and a plain outer step make the mean gradient's step: all of these are data
/// parallel then.
TEST(Identities, WithOneSgdStepAMergeIsTheMeanGradientsStep) {
  MethodRun parallel = plain("data_parallel", 1);
  parallel.slots = 3;
  parallel.context.gradient_step = make_gradient_step({.make_optimizer = [&parallel] {
    return make_plugin<InnerOptimizer>(parallel.inner, parallel.inner_settings);
  }});
  MethodRig reference(parallel);
  ASSERT_TRUE(reference.finish());
  for (const MethodRun& run :
       {plain("diloco", 1), plain("local_sgd", 1), plain("des_loc", 1),
        with(plain("sparta", 1), {{"share", 1.0}}), with(plain("sparta", 1), {{"diloco_every", 1}}),
        with(plain("sparseloco", 1), {{"density", 1.0}, {"value_bits", 32}})}) {
    SCOPED_TRACE(run.method);
    MethodRun of_three = run;
    of_three.slots = 3;
    MethodRig rig(of_three);
    ASSERT_TRUE(rig.finish());
    for (const ParamSpec& spec : some_specs) {
      const auto a = reference.committed(0, 3, spec.name), b = rig.committed(0, 3, spec.name);
      for (std::size_t i = 0; i < a.size(); ++i)
        EXPECT_NEAR(a[i], b[i], 1e-6 * (1 + std::abs(static_cast<double>(a[i])))) << spec.name;
    }
  }
}

TEST(Identities, OfTheseMethodsToIdenticalSlotsAreOneSlot) {
  for (MethodRun run :
       {adamw(with(plain("des_loc", 2), {{"first_every", 1}, {"second_every", 2}})),
        with(plain("sparseloco", 2), {{"density", 0.3}}), with(plain("sparta", 1), {{"share", 0.3}}),
        with(plain("sparta", 1), {{"share", 0.3}, {"diloco_every", 2}})}) {
    SCOPED_TRACE(run.method);
    run.same_data = true;
    run.rounds = 5;
    std::map<std::int32_t, std::vector<float>> last;
    for (std::int32_t slots : {1, 2, 3}) {
      run.slots = slots;
      MethodRig rig(run);
      ASSERT_TRUE(rig.finish());
      last[slots] = rig.committed(0, 5, "layers.1.w");
    }
    EXPECT_EQ(last[2], last[1]);
    EXPECT_EQ(last[3], last[1]);
  }
}

}  // namespace
}  // namespace tessera::testing
