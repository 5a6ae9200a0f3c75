// Plans and methods as workloads: the same operations and bytes as the cost report, and the times that
// follow.
#include "launch/simulate/recipe_workload.h"

#include <gmock/gmock.h>

#include "coordinator/planner.h"
#include "launch/simulate/simulate.h"
#include "tests/optim/chosen_method.h"

namespace tessera {
namespace {

/// A decoder 4 wide with 2 layers: embedding 10 x 4, attention 4 x (4 x 4), MLP 2 x (16 x 4) each.
struct Gpt {
  std::vector<ParamSpec> specs;
  std::vector<CutGroup> cuts;
  CostModel cost;
  Gpt() {
    specs.push_back({.name = "embedding", .shape = {10, 4}, .products = 1});
    for (const std::string block : {"blocks.0.", "blocks.1."}) {
      for (const char* name : {"attention.q", "attention.k", "attention.v", "attention.out"})
        specs.push_back({.name = block + name, .shape = {4, 4}, .products = 1});
      CutGroup mlp{block + "mlp", "mlp", "units", 16, {}};
      for (const char* name : {"mlp.up", "mlp.down"}) {
        specs.push_back({.name = block + name, .shape = {16, 4}, .products = 1});
        mlp.members.push_back({block + name});
      }
      cuts.push_back(mlp);
    }
    specs.push_back({.name = "norm", .shape = {4}});
    cost.attention_width = 8;
    cost.context = 8;
  }
};

struct Prepared {
  Plan plan;
  CostReport report;
  Workload work;
};

Prepared prepare(const std::string& method, std::int64_t slices, std::int32_t slots, CostSettings settings,
                 double workers) {
  const Gpt model;
  PartialSettings partial;
  partial.cut = slices > 1 ? "mlp" : "none";
  partial.slices = slices;
  const auto outer = Registry<OuterMethod>::builtin().make(
      method,
      {.specs = model.specs, .steps = method == "data_parallel" ? 1 : settings.steps, .slots = slots});
  settings.steps = outer->steps_per_merge();
  Prepared all{*make_plan(model.specs, model.cuts, partial, slots), {}, {}};
  all.report = cost_of(all.plan, model.specs, model.cost, settings);
  all.work = workload_of(all.plan, model.specs, model.cost, *outer, settings, workers);
  return all;
}

CostSettings five_steps() {
  CostSettings settings;
  settings.tokens_per_step = 16;
  settings.steps = 5;
  return settings;
}

TEST(RecipeWorkload, HasTheOperationsAndBytesOfTheCostReport) {
  for (const std::int64_t slices : {1, 2, 3}) {
    const Prepared p = prepare("diloco", slices, 4, five_steps(), 4);
    EXPECT_EQ(p.work.workers(), 4);
    EXPECT_EQ(p.work.groups.front().layers.size(), 2u) << "embedding and norm belong to their neighbours";
    double flops = 0, up = 0, down = 0;
    for (const WorkerGroup& group : p.work.groups) {
      for (const StepFlops& layer : group.layers) flops += 5 * group.workers * layer.total();
      for (const LayerBytes& piece : group.fragments.at(0)) {
        up += group.workers * piece.bytes_up;
        down += group.workers * piece.bytes_down;
      }
    }
    EXPECT_DOUBLE_EQ(flops, p.report.total.flops);
    EXPECT_DOUBLE_EQ(up, p.report.total.bytes_up);
    EXPECT_DOUBLE_EQ(down, p.report.total.bytes_down);
  }
  EXPECT_EQ(prepare("diloco", 2, 4, five_steps(), 4).work.groups.size(), 1u) << "equal slots are one group";
}

TEST(RecipeWorkload, WithoutACutIsWhatTheLayersSay) {
  const Gpt model;
  const Prepared p = prepare("diloco", 1, 3, five_steps(), 3);
  MethodShape shape{.method = "diloco", .steps = 5, .bytes_up = 4, .bytes_down = 4, .by_layer = false};
  const Workload shaped = with_workers(workload_of(layers_of(model.specs, model.cost, 16), shape), 3);
  const Cluster cluster{.flops_per_second = 1e4, .up_bits = 1e5, .down_bits = 2e5, .server_bits = 1e5};
  EXPECT_DOUBLE_EQ(simulate(p.work, cluster).seconds, simulate(shaped, cluster).seconds);
}

TEST(RecipeWorkload, AMethodsOwnLocalHalfSaysWhen) {
  EXPECT_THAT(prepare("diloco", 1, 2, five_steps(), 2).work.exchanges,
              testing::ElementsAre(Exchange{0, 4, 5}));
  EXPECT_THAT(prepare("data_parallel", 1, 2, five_steps(), 2).work.exchanges,
              testing::ElementsAre(Exchange{0, 0, 1}));
}

TEST(RecipeWorkload, StaggersSlicesWithTheirOwnersBytesAlone) {
  const Gpt model;
  PartialSettings partial;
  partial.cut = "mlp";
  partial.slices = 4;
  const auto schedule = PlanSchedule::make(model.specs, model.cuts, partial, 4);
  const auto outer =
      chosen_method("streaming", {.numbers = {{"fragments", 4}}, .words = {{"pattern", "slices"}}},
                    {.specs = model.specs, .steps = 8, .slice_rows = schedule->slice_rows()});
  const Workload work = workload_of(schedule->at({0}), model.specs, model.cost, *outer, five_steps(), 4);
  EXPECT_THAT(work.exchanges, testing::ElementsAre(Exchange{0, 1, 2}, Exchange{1, 3, 4}, Exchange{2, 5, 6},
                                                   Exchange{3, 7, 8}));
  ASSERT_EQ(work.groups.size(), 4u) << "slots differ in when they send what they own";
  for (std::size_t slot = 0; slot < 4; ++slot) {
    for (std::size_t f = 0; f < 4; ++f) {
      double up = 0, down = 0;
      for (const LayerBytes& piece : work.groups[slot].fragments[f]) {
        up += piece.bytes_up;
        down += piece.bytes_down;
      }
      // Of four matrices of attention in two layers a row each, of ten rows of the embedding 2, 3, 2, 3; the
      // norm goes to where least is. A slice is 4 rows of up and down in two layers.
      const double shared = 4 * (8 + (f % 2 == 0 ? 2 : 3)) + (f == 0 ? 4 : 0), slice = 4 * 4 * 4;
      EXPECT_EQ(up, 4 * (shared + (slot == f ? slice : 0))) << slot << " " << f;
      EXPECT_EQ(down, 4 * (shared + slice)) << slot << " " << f;
    }
  }
}

/// Two fragments half a period apart, adopted `lag` steps after they left; the first versions come late.
class Staggered final : public OuterMethod {
 public:
  Staggered(std::int64_t steps, std::int64_t lag) : steps_(steps), lag_(lag) {}
  std::vector<std::vector<std::string>> fragments() const override { return {{"a"}, {"b"}}; }
  Due due(std::int64_t step) const override {
    Due due;
    for (const std::int32_t f : {0, 1}) {
      const std::int64_t offset = f * steps_ / 2;
      if ((step + 1 + offset) % steps_ == 0) due.push.push_back(f);
      if (step >= lag_ && (step + 1 + offset - lag_) % steps_ == 0) due.adopt.push_back(f);
    }
    return due;
  }
  std::int64_t steps_per_merge() const override { return steps_; }
  std::vector<std::string> state_names() const override { return {}; }
  OuterReport apply(std::int64_t, std::span<const Update>) const override { return {}; }

 private:
  std::int64_t steps_, lag_;
};

TEST(RecipeWorkload, VersionsArePairedWithTheirContributionsAcrossPeriods) {
  for (const std::int64_t lag : {1, 3, 10, 13, 20})
    EXPECT_THAT(exchanges_of(Staggered(10, lag)),
                testing::ElementsAre(Exchange{1, 4, 4 + lag}, Exchange{0, 9, 9 + lag}))
        << lag;
}

TEST(RecipeWorkload, ARoundIsLimitedByTheLinkOrByTheCoordinator) {
  const Prepared p = prepare("diloco", 2, 4, five_steps(), 4);
  const double owned = p.report.slots[0].owned_parameters, all = p.report.parameters;
  Cluster cluster;
  cluster.flops_per_second = 5 * p.report.slots[0].step.total();  // so a round computes for one second
  EXPECT_DOUBLE_EQ(simulate(p.work, cluster).compute_utilisation(), 1);
  cluster.up_bits = 8 * 4 * owned;      // one second up
  cluster.down_bits = 8 * 4 * all / 2;  // two seconds down
  cluster.latency_seconds = 0.25;
  Outcome time = simulate(p.work, cluster);
  EXPECT_NEAR(time.compute_seconds, 1, 1e-12);
  EXPECT_NEAR(time.waiting_seconds(), 3.5, 1e-9);
  cluster.server_bits = 8 * 4 * all;  // four slots at once: four seconds down
  time = simulate(p.work, cluster);
  EXPECT_NEAR(time.waiting_seconds(), 4 + 4 * owned / all + 0.5, 1e-9);
  cluster.server_bits = 0;
  const Prepared parallel = prepare("data_parallel", 1, 4, five_steps(), 4);
  EXPECT_NEAR(5 * simulate(parallel.work, cluster).waiting_seconds(), 5 * (all / owned + 2 + 0.5), 1e-9);
}

TEST(RecipeWorkload, AWorkerRunsItsSlotsInTurn) {
  const Prepared apart = prepare("diloco", 2, 4, five_steps(), 4),
                 shared = prepare("diloco", 2, 4, five_steps(), 2);
  const Cluster cluster{.flops_per_second = 1e4, .up_bits = 1e5, .down_bits = 2e5};
  const Outcome one = simulate(apart.work, cluster), two = simulate(shared.work, cluster);
  EXPECT_EQ(shared.work.workers(), 2);
  EXPECT_DOUBLE_EQ(two.compute_seconds, 2 * one.compute_seconds);
  EXPECT_DOUBLE_EQ(two.bytes_up, 2 * one.bytes_up);
  EXPECT_DOUBLE_EQ(two.bytes_down, one.bytes_down);
}

TEST(RecipeWorkload, FastValuesAreFetchedBesideTheOthers) {
  CostSettings settings = five_steps();
  settings.fetches_fast = true;
  const Prepared p = prepare("diloco", 2, 4, settings, 4);
  EXPECT_DOUBLE_EQ(4 * simulate(p.work, {}).bytes_down, p.report.total.bytes_down);
}

}  // namespace
}  // namespace tessera
