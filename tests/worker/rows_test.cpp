// Whole runs whose fragments are rows: slices of a cut, or rows of everything, at their own times.
#include <gmock/gmock.h>

#include "comm/codec.h"
#include "tests/worker/method_rig.h"

namespace tessera::testing {
namespace {

using ::testing::Each;
using ::testing::ElementsAreArray;

/// Rows [begin, end) of "cut", and of "thin" twice as many.
RowSet slice_of(std::int64_t begin, std::int64_t end) {
  return {{"cut", {{begin, end}}}, {"thin", {{2 * begin, 2 * end}}}};
}

/// Eight rows are cut in so many slices, and slot k owns slice k mod N. Everybody trains the rest.
MethodRun cut_run(MethodRun run, std::int32_t slots, std::int64_t slices) {
  run.specs = {{"cut", {8, 2}}, {"thin", {16}}, {"rest", {5, 2}}, {"gain", {3}}};
  run.slots = slots;
  run.cut = {"cut", "thin"};
  const std::int64_t rows = 8 / slices;
  for (std::int64_t s = 0; s < slices; ++s)
    run.context.slice_rows.push_back(slice_of(s * rows, (s + 1) * rows));
  run.owned = [parts = run.context.slice_rows](SlotId slot) {
    RowSet owned = parts[static_cast<std::size_t>(slot.value) % parts.size()];
    add_rows(owned, {{"rest", {{0, 5}}}, {"gain", {{0, 3}}}});
    return owned;
  };
  run.inner = "adamw";
  run.inner_settings = {{"lr", 0.1}};
  return run;
}

MethodRun staggered(const std::string& pattern, int fragments, int tau = 0, double alpha = 0) {
  return {.method = "streaming",
          .settings = {{"fragments", fragments}, {"pattern", pattern}, {"tau", tau}, {"alpha", alpha}},
          .context = {.steps = 8, .lr = 0.5, .momentum = 0.5, .cut = OuterStep{0.4, 0.3}}};
}

MethodRun uncut(MethodRun run, std::int32_t slots) {
  run = cut_run(std::move(run), slots, 1);
  run.cut.clear();
  run.context.slice_rows.clear();
  return run;
}

MethodRun fast(MethodRun run, bool for_all) {
  run.keeps_fast = true;
  run.fast_for_all = for_all;
  return run;
}

MethodRun down(MethodRun run, const std::string& codec, double feedback) {
  run.down = {Registry<Codec>::builtin().make(codec, {}), feedback};
  return run;
}

MethodRun as_diloco(MethodRun run) {
  run.method = "diloco";
  run.settings = Json::object();
  return run;
}

struct Case {
  std::string name;
  MethodRun run;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::vector<Case> cases() {  // not before main(): codecs register themselves
  return {
      {"rows", uncut(staggered("rows", 4), 3)},
      {"rows_mixed", uncut(staggered("rows", 2, 2, 0.25), 3)},
      {"slices", cut_run(staggered("slices", 4), 4, 4)},
      {"slices_by_two_overlapped", cut_run(staggered("slices", 2, 1), 4, 4)},
      {"slices_mixed", cut_run(staggered("slices", 2, 2, 0.25), 4, 2)},
      {"slices_fast", fast(cut_run(staggered("slices", 4, 1, 0.5), 4, 4), false)},
      {"slices_fast_shared", fast(cut_run(staggered("slices", 2, 1, 0.5), 4, 2), true)},
      {"slices_updates", down(cut_run(staggered("slices", 4), 4, 4), "int8", 1)},
  };
}

class Rowwise : public ::testing::TestWithParam<Case> {};

TEST_P(Rowwise, NeitherWorkersNorDeathsChangeABit) {
  expect_the_same_whoever_dies(GetParam().run);
}

TEST_P(Rowwise, ARunGoesOnFromItsCheckpointToTheSameBits) {
  MethodRun run = GetParam().run;
  run.rounds = 5;
  MethodRig undisturbed(run), rig(run);
  ASSERT_TRUE(undisturbed.finish());
  while (rig.rows().size() < 3 * rig.method().fragments().size()) rig.pump();  // a checkpoint is at round 2
  rig.lose_committed_states();
  EXPECT_LE(rig.coordinator->state().version({0}), Version{2});
  ASSERT_TRUE(rig.finish());
  EXPECT_EQ(rig.story(), undisturbed.story());
}

INSTANTIATE_TEST_SUITE_P(Runs, Rowwise, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

std::vector<std::string> story_of(const MethodRun& run) {
  MethodRig rig(run);
  EXPECT_TRUE(rig.finish());
  return rig.story();
}

TEST(StaggeredRows, OfOneFragmentAreDiLoCoToTheHash) {
  for (const MethodRun& run : {uncut(staggered("rows", 1), 3), cut_run(staggered("slices", 1), 4, 4),
                               fast(cut_run(staggered("slices", 1), 4, 4), false)})
    EXPECT_EQ(story_of(run), story_of(as_diloco(run)));
}

/// By hand, as golden vector 3.3 c of the reference: -2 a step, H = 6, outer Nesterov 0.5 with momentum 0.5.
/// The first half comes after 3 steps: b = 6, theta = 1 - (6 + 3) / 2; then b = 3 + 12, ...
TEST(StaggeredRows, FollowDiLoCoEachAtItsOwnTime) {
  MethodRun run = staggered("slices", 2);
  run.context.steps = 6;
  run.context.cut = OuterStep{0.5, 0.5};
  run.specs = {{"cut", {4, 1}}, {"rest", {4, 1}}};
  run.cut = {"cut"};
  run.context.slice_rows = {{{"cut", {{0, 2}}}}, {{"cut", {{2, 4}}}}};
  run.owned = [](SlotId slot) {
    return RowSet{{"cut", {{2 * slot.value, 2 * slot.value + 2}}}, {"rest", {{0, 4}}}};
  };
  run.slope = 2;
  run.inner_settings = {{"lr", 1.0}, {"weight_decay", 0.0}};
  MethodRig rig(run);
  ASSERT_TRUE(rig.finish());
  const float theta[2][2] = {{-13.25f, -24.125f}, {-18.5f, -29.75f}},
              momentum[2][2] = {{15, 19.5f}, {18, 21}};
  for (std::int32_t f : {0, 1}) {
    const std::string rows = f == 0 ? "[0:2]" : "[2:4]";
    for (std::int64_t version : {2, 3}) {
      for (const std::string name : {"cut", "rest"}) {
        EXPECT_THAT(rig.committed(f, version, name + rows), Each(theta[f][version - 2]));
        EXPECT_THAT(rig.committed(f, version, "momentum/" + name + rows), Each(momentum[f][version - 2]));
      }
    }
  }
  const auto path = [&](std::int32_t slot, std::size_t row) {
    std::vector<float> path;
    for (std::int64_t step = 0; step < 10; ++step) path.push_back(rig.seen->at({slot}).at(step)[row]);
    return path;
  };
  EXPECT_THAT(path(0, 0),
              ElementsAreArray({1.f, -1.f, -3.f, -3.5f, -5.5f, -7.5f, -9.5f, -11.5f, -13.5f, -13.25f}));
  EXPECT_THAT(path(1, 0),
              ElementsAreArray({1.f, 1.f, 1.f, -3.5f, -3.5f, -3.5f, -3.5f, -3.5f, -3.5f, -13.25f}));
  EXPECT_THAT(path(0, 2), ElementsAreArray({1.f, 1.f, 1.f, 1.f, 1.f, 1.f, -8.f, -8.f, -8.f, -8.f}));
  EXPECT_THAT(path(1, 2), ElementsAreArray({1.f, -1.f, -3.f, -5.f, -7.f, -9.f, -8.f, -10.f, -12.f, -14.f}));
  EXPECT_THAT(path(1, 4), ElementsAreArray(path(0, 4))) << "shared";
}

/// The same against a recursion in double precision for every row on its own, with noise, tau and alpha.
TEST(StaggeredRows, AreARecursionOfTheirOwn) {
  const double inner = 0.25, alpha = 0.25, shared_lr = 0.5, shared_mu = 0.5, cut_lr = 0.3, cut_mu = 0.2;
  MethodRun run = cut_run(staggered("slices", 4, 1, alpha), 4, 4);
  run.context.cut = OuterStep{cut_lr, cut_mu};
  run.inner = "sgd";
  run.inner_settings = {{"lr", inner}, {"weight_decay", 0.0}};
  MethodRig rig(run);
  ASSERT_TRUE(rig.finish());
  const std::vector<RowSet> fragments = fragment_rows(rig.method(), run.specs);
  const Positions data;
  const std::int64_t last = rig.seen->at({0}).rbegin()->first;
  EXPECT_GE(last, 20);
  std::size_t at = 0;  // parameters are on record in the order of their names
  std::map<std::string, ParamSpec> by_name;
  for (const ParamSpec& spec : run.specs) by_name.emplace(spec.name, spec);
  for (const auto& [name, spec] : by_name) {
    for (std::int64_t row = 0; row < spec.rows(); ++row, at += static_cast<std::size_t>(spec.row_size())) {
      SCOPED_TRACE(name + " " + std::to_string(row));
      const RowSet here{{name, {{row, row + 1}}}};
      std::int32_t fragment = 0;
      while (common_rows(fragments[static_cast<std::size_t>(fragment)], here).empty()) ++fragment;
      const bool cut = run.cut.contains(name);
      const double lr = cut ? cut_lr : shared_lr, mu = cut ? cut_mu : shared_mu;
      double theta = 1, b = 0, x[4] = {1, 1, 1, 1};
      for (std::int64_t step = 0; step <= last; ++step) {
        const Due due = rig.method().due(step);
        const auto is_in = [&](const std::vector<std::int32_t>& list) {
          return std::count(list.begin(), list.end(), fragment) > 0;
        };
        double sum = 0, owners = 0;
        for (std::int32_t k = 0; k < 4; ++k) {
          const bool owns = !common_rows(run.owned({k}), here).empty();
          if (is_in(due.adopt)) x[k] = owns ? alpha * x[k] + (1 - alpha) * theta : theta;
          EXPECT_NEAR(rig.seen->at({k}).at(step)[at], x[k], 1e-5) << "slot " << k << " step " << step;
          if (!owns) continue;
          const Batch batch = data.train({k}, static_cast<std::uint64_t>(step), 1);
          x[k] -= inner * (x[k] - static_cast<double>(batch.tensors.at("position").as<float>()[2]));
          sum += theta - x[k];
          owners += 1;
        }
        if (!is_in(due.push)) continue;
        const double delta = sum / owners;
        b = mu * b + delta;
        theta -= lr * (delta + mu * b);
      }
    }
  }
}

TEST(StaggeredRows, WithGainOneFastViewsAreTheResetViewBitForBit) {
  for (const std::int64_t slices : {4, 2}) {
    MethodRun reset = cut_run(staggered("slices", 2), 4, slices);
    reset.context.rule = "sgd";
    reset.context.cut = OuterStep{1, 0};
    MethodRun half = reset;
    half.context.cut = OuterStep{0.5, 0};
    MethodRig a(reset), b(fast(reset, slices < 4)), c(fast(half, slices < 4));
    ASSERT_TRUE(a.finish() && b.finish() && c.finish());
    EXPECT_EQ(*a.seen, *b.seen);
    EXPECT_NE(*a.seen, *c.seen);
  }
}

TEST(StaggeredRows, CarryOneNthAtOnce) {
  for (const std::string pattern : {"slices", "rows"}) {
    MethodRun run = cut_run(staggered(pattern, 4), 4, 4);
    run.specs = {{"cut", {4000, 1}}, {"rest", {4000, 2}}};
    run.cut = {"cut"};
    run.context.slice_rows.clear();
    if (pattern == "rows") run.cut.clear();
    for (std::int64_t s = 0; s < 4 && pattern == "slices"; ++s)
      run.context.slice_rows.push_back({{"cut", {{1000 * s, 1000 * s + 1000}}}});
    run.owned = [parts = run.context.slice_rows](SlotId slot) {
      RowSet owned =
          parts.empty() ? RowSet{{"cut", {{0, 4000}}}} : parts[static_cast<std::size_t>(slot.value)];
      add_rows(owned, "rest", {0, 4000});
      return owned;
    };
    MethodRig rig(run), whole(as_diloco(run));
    ASSERT_TRUE(rig.finish() && whole.finish());
    for (const std::string way : {"bytes_up", "bytes_down"}) {
      double most = 0, all = 0;
      for (const Json& row : rig.rows()) most = std::max(most, row[way].get<double>());
      for (const Json& row : whole.rows()) all = std::max(all, row[way].get<double>());
      EXPECT_NEAR(most / all, 0.25, 0.01) << pattern << " " << way;
    }
  }
}

}  // namespace
}  // namespace tessera::testing
