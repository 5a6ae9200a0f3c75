// Outer rules against torch.optim.SGD's arithmetic, and the two halves of each method.
#include "optim/outer.h"

#include <gmock/gmock.h>
#include <tessera_plugins/outer.h>

#include <algorithm>
#include <limits>

#include "base/random.h"
#include "base/set_numbers.h"

namespace tessera {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::vector<ParamSpec> two_specs() {
  return {{"a", {2}}, {"b", {3, 2}}, {"mine", {4}, Role::local}};
}

std::unique_ptr<OuterMethod> make_method(const std::string& name, OuterMethod::Context context) {
  return Registry<OuterMethod>::builtin().make(name, context);
}

/// A method's duties around steps 0, 1, ...: "a0.p1" adopts fragment 0 before a step and pushes 1 after it.
std::string duties(const OuterMethod& method, std::int64_t steps) {
  std::string trace;
  for (std::int64_t step = 0; step < steps; ++step) {
    const Due due = method.due(step);
    for (std::int32_t fragment : due.adopt) trace += "a" + std::to_string(fragment);
    trace += ".";
    for (std::int32_t fragment : due.push) trace += "p" + std::to_string(fragment);
  }
  return trace;
}

TEST(OuterRule, NesterovStepsAsTorchSgdDoes) {
  // b = 1, .9, -1.19 and steps .7 (d + .9 b), by hand; torch.optim.SGD(lr=.7, momentum=.9, nesterov=True)
  // gives the same.
  const auto rule = make_outer_rule("nesterov", 0.9);
  ASSERT_THAT(rule->state_names(), ElementsAre("momentum"));
  std::vector<float> theta{10}, momentum{0};
  const double deltas[] = {1, 0, -2}, thetas[] = {8.67, 8.103, 10.2527}, momenta[] = {1, 0.9, -1.19};
  for (int i = 0; i < 3; ++i) {
    const std::span<float> state[] = {momentum};
    rule->apply(0.7, theta, {&deltas[i], 1}, state);
    EXPECT_NEAR(theta[0], thetas[i], 1e-6);
    EXPECT_NEAR(momentum[0], momenta[i], 1e-6);
  }
}

TEST(OuterRule, NesterovGainOfAConstantDeltaTendsToLrOverOneMinusMomentum) {
  const auto rule = make_outer_rule("nesterov", 0.9);
  std::vector<float> theta{0}, momentum{0};
  const std::vector<double> delta{1};
  const std::span<float> state[] = {momentum};
  for (int i = 0; i < 300; ++i) rule->apply(0.7, theta, delta, state);
  const float before = theta[0];
  rule->apply(0.7, theta, delta, state);
  EXPECT_NEAR(before - theta[0], 7.0, 1e-3);
}

TEST(OuterRule, SgdAtRateOneLandsExactlyOnTheAverageThatMadeTheDelta) {
  KeyedRandom random(1);
  const auto rule = make_outer_rule("sgd", 0.9);
  EXPECT_THAT(rule->state_names(), IsEmpty());
  int inexact_in_fp32 = 0;
  for (int i = 0; i < 100000; ++i) {
    const float start = static_cast<float>(0.02 * random.normal());
    const float end = static_cast<float>(0.02 * random.normal());
    float theta = start;
    const double delta = static_cast<double>(start) - static_cast<double>(end);
    rule->apply(1.0, {&theta, 1}, {&delta, 1}, {});
    ASSERT_EQ(theta, end);
    inexact_in_fp32 += start - (start - end) != end;
  }
  EXPECT_GT(inexact_in_fp32, 100) << "the reason why deltas are fp64";
}

TEST(OuterRule, WithoutMomentumNesterovIsSgdAndKeepsNoState) {
  EXPECT_THAT(make_outer_rule("nesterov", 0)->state_names(), IsEmpty());
  EXPECT_DEATH(make_outer_rule("nestrov", 0.9), "no outer rule named nestrov");
}

TEST(OuterRule, AdamStepsAsFedAdamDoes) {
  // Deltas 2 and -1 with mu .9, beta2 .99, epsilon .001, by hand: m = .2, .08; v = .04, .0496.
  const auto rule = make_outer_rule("adam", 0.9);
  ASSERT_THAT(rule->state_names(), ElementsAre("momentum", "variance"));
  std::vector<float> theta{1}, momentum{0}, variance{0};
  const std::span<float> state[] = {momentum, variance};
  const double deltas[] = {2, -1},
               thetas[] = {1 - 0.1 * 0.2 / 0.201, 1 - 0.1 * (0.2 / 0.201 + 0.08 / (0.22271057 + 0.001))};
  for (int i = 0; i < 2; ++i) {
    rule->apply(0.1, theta, {&deltas[i], 1}, state);
    EXPECT_NEAR(theta[0], thetas[i], 1e-6);
  }
  EXPECT_NEAR(momentum[0], 0.08, 1e-7);
  EXPECT_NEAR(variance[0], 0.0496, 1e-7);
}

TEST(OuterRule, MomentumRestartsAndWeightsDecayWhereTheyMay) {
  std::vector<float> theta{2}, gain{2}, momentum{3};
  const ParamSpec decays{"w", {1}}, stays{.name = "gain", .shape = {1}, .decay = false};
  const std::vector<Update> updates{{.spec = &decays, .theta = theta, .state = {momentum}},
                                    {.spec = &stays, .theta = gain}};
  for (std::int64_t version : {1, 2, 3, 5, 6}) restart_state(3, version, updates);
  EXPECT_EQ(momentum[0], 3) << "begins anew with merges 4, 7, ...";
  restart_state(0, 4, updates);
  EXPECT_EQ(momentum[0], 3);
  restart_state(3, 4, updates);
  EXPECT_EQ(momentum[0], 0);
  for (const Update& update : updates) decay_weights(0.25, update);
  EXPECT_EQ(theta[0], 1.5f);
  EXPECT_EQ(gain[0], 2);
}

TEST(DiLoCo, DecaysByTheRateAndRestartsItsMomentum) {
  const auto method =
      make_method("diloco", {.specs = two_specs(), .lr = 0.5, .weight_decay = 0.1, .restart_every = 1});
  std::vector<float> theta{2}, momentum{7};
  const std::vector<double> delta{1};
  method->apply(1, std::vector<Update>{{.theta = theta, .delta = delta, .state = {momentum}}});
  EXPECT_FLOAT_EQ(momentum[0], 0.9f * 7 + 1);
  theta = {2};
  method->apply(2, std::vector<Update>{{.theta = theta, .delta = delta, .state = {momentum}}});
  EXPECT_FLOAT_EQ(momentum[0], 1);
  EXPECT_FLOAT_EQ(theta[0], 2 * 0.95f - 0.5f * 1.9f);
}

TEST(Eager, AdoptsJustBeforeThePushThatBuildsOnIt) {
  EXPECT_EQ(duties(*make_method("eager", {.specs = two_specs(), .steps = 3}), 7), "...p0..a0.p0.");
  EXPECT_EQ(duties(*make_method("eager", {.specs = two_specs(), .steps = 1}), 3), ".p0a0.p0a0.p0");
}

TEST(Eager, RefusesWhatASlotCannotTakeAShareOf) {
  const auto problems = [](OuterMethod::Context context) {
    return make_method("eager", context)->problems();
  };
  const double automatic = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(problems({.lr = 0.5, .cut = OuterStep{0.5, 0}}), IsEmpty());
  EXPECT_THAT(problems({.lr = automatic}), Not(IsEmpty()));
  EXPECT_THAT(problems({.cut = OuterStep{automatic, 0}}), IsEmpty()) << "nothing is cut";
  EXPECT_THAT(problems({.cut = OuterStep{automatic, 0}, .slices = 2}),
              ElementsAre(HasSubstr("outer.cut_lr")));
  EXPECT_THAT(problems({.rule = "adam"}), ElementsAre(HasSubstr("adam")));
  EXPECT_THAT(problems({.weight_decay = 0.1}), ElementsAre(HasSubstr("outer.weight_decay")));
  EXPECT_THAT(problems({.restart_every = 2}), ElementsAre(HasSubstr("outer.restart_every")));
  EXPECT_THAT(problems({.keeps_fast = true}), ElementsAre(HasSubstr("owner_view")));
  EXPECT_THAT(problems({.rotates = true}), ElementsAre(HasSubstr("rotate_every")));
}

TEST(LocalSgd, RefusesWhatAMeanHasNoUseFor) {
  const auto problems = [](OuterMethod::Context context) {
    return make_method("local_sgd", context)->problems();
  };
  EXPECT_THAT(problems({.lr = std::numeric_limits<double>::quiet_NaN()}), IsEmpty());
  EXPECT_THAT(problems({.lr = 0.7}), ElementsAre(HasSubstr("outer.lr")));
  EXPECT_THAT(make_method("local_sgd", {.specs = two_specs()})->state_names(), IsEmpty());
}

TEST(SparseLoco, SaysHowItEncodesAndRefusesAnOuterOptimizer) {
  const auto problems = [](OuterMethod::Context context) {
    return make_method("sparseloco", context)->problems();
  };
  EXPECT_THAT(problems({.lr = 0.65, .restart_every = 0}), IsEmpty());
  EXPECT_THAT(problems({.rule = "adam"}), ElementsAre(HasSubstr("outer.rule")));
  EXPECT_THAT(problems({.weight_decay = 0.1}), ElementsAre(HasSubstr("outer.weight_decay")));
  EXPECT_THAT(problems({.keeps_fast = true}), ElementsAre(HasSubstr("owner_view")));
  const Encoding encoding = *make_method("sparseloco", {})->encoding();
  EXPECT_EQ(encoding.codec, "topk");
  EXPECT_EQ(encoding.feedback, 0.95);
  EXPECT_EQ(encoding.settings.at("density") * encoding.settings.at("chunk"), 64);
  std::vector<float> theta{1}, cut{1};
  const std::vector<double> delta{0.5};
  const std::vector<Update> updates{{.theta = theta, .delta = delta},
                                    {.theta = cut, .delta = delta, .cut = true}};
  const double automatic = std::numeric_limits<double>::quiet_NaN();
  make_method("sparseloco", {.lr = automatic, .cut = OuterStep{automatic, 0.5}})->apply(1, updates);
  EXPECT_EQ(theta[0], 0.5f) << "alpha is 1 unless it is set";
  EXPECT_EQ(cut[0], 0.5f);
  make_method("sparseloco", {.lr = 0.5, .cut = OuterStep{automatic, 0.5}})->apply(2, updates);
  EXPECT_EQ(cut[0], 0.25f) << "of what is cut too";
  EXPECT_THAT(make_method("sparseloco", {.specs = two_specs()})->state_names(), IsEmpty());
}

TEST(DesLoc, MomentsHavePeriodsByTheirOrderAndNeedOwnersThatStay) {
  const auto method = make_method("des_loc", {.specs = two_specs(), .lr = 1});
  EXPECT_EQ(method->merges_per_moment("exp_avg"), 3);
  EXPECT_EQ(method->merges_per_moment("momentum"), 3);
  EXPECT_EQ(method->merges_per_moment("exp_avg_sq"), 6);
  EXPECT_EQ(make_method("diloco", {})->merges_per_moment("exp_avg"), 0);
  EXPECT_THAT(method->problems(), IsEmpty());
  EXPECT_THAT(make_method("des_loc", {.lr = 1, .rotates = true})->problems(),
              ElementsAre(HasSubstr("rotate_every")));
  EXPECT_THAT(make_method("des_loc", {.lr = 0.7})->problems(), ElementsAre(HasSubstr("outer.lr")));
}

std::unique_ptr<OuterMethod> make_sparta(double share, int diloco_every, OuterMethod::Context context) {
  const auto settings = Registry<OuterMethod>::builtin().make_settings("sparta");
  set_numbers(*settings, {{"share", share}, {"diloco_every", diloco_every}});
  return Registry<OuterMethod>::builtin().make("sparta", *settings, context);
}

/// Positions of a row range are those of the whole that lie in it; each merge draws one of every stretch, and
/// over many merges every coordinate equally often.
TEST(Sparta, DrawsTheSameCoordinatesForAllAndEachEquallyOften) {
  const ParamSpec spec{"w", {100, 10}}, other{"v", {100, 10}};
  const auto method = make_sparta(0.02, 0, {.lr = 1, .seed = 5});
  EXPECT_EQ(method->share(), 0.02);
  std::vector<int> drawn(1000);
  for (std::int64_t version = 1; version <= 5000; ++version) {
    const Positions all = *method->coordinates(version, spec, {0, 100});
    ASSERT_EQ(all.size(), 20u);
    for (std::size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(all[i] / 50, static_cast<std::int64_t>(i));
      ++drawn[static_cast<std::size_t>(all[i])];
    }
    if (version > 50) continue;
    EXPECT_EQ(all, *method->coordinates(version, spec, {0, 100}));
    EXPECT_NE(all, *method->coordinates(version + 1, spec, {0, 100}));
    EXPECT_NE(all, *method->coordinates(version, other, {0, 100}));
    EXPECT_NE(all, *make_sparta(0.02, 0, {.lr = 1, .seed = 6})->coordinates(version, spec, {0, 100}));
    Positions joined;
    for (const Rows rows : {Rows{0, 13}, Rows{13, 14}, Rows{14, 100}}) {
      const Positions part = *method->coordinates(version, spec, rows);
      for (std::int64_t i : part) joined.push_back(i + 10 * rows.begin);
    }
    EXPECT_EQ(joined, all);
  }
  for (int count : drawn) EXPECT_NEAR(count, 100, 5 * 10) << "5000 merges, one in fifty";
}

TEST(Sparta, TakesEverythingWhereDiLoCoIsDueAndKnowsItsShare) {
  const ParamSpec spec{"w", {100, 10}}, buffer{"b", {4}, Role::buffer};
  const auto method = make_sparta(0.01, 4, {.lr = 0.5});
  EXPECT_DOUBLE_EQ(method->share(), 0.25 + 0.75 * 0.01);
  for (std::int64_t version = 0; version < 9; ++version) {
    EXPECT_EQ(method->coordinates(version, spec, {0, 100}).has_value(), version % 4 != 0);
    EXPECT_FALSE(method->coordinates(version, buffer, {0, 4}).has_value());
  }
  EXPECT_EQ(make_sparta(1, 0, {})->share(), 1);
  const auto problems = [](int diloco_every, OuterMethod::Context context) {
    return make_sparta(0.01, diloco_every, context)->problems();
  };
  const double automatic = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(problems(0, {.lr = automatic}), IsEmpty());
  EXPECT_THAT(problems(0, {.lr = 0.5}), ElementsAre(HasSubstr("outer.lr")));
  EXPECT_THAT(problems(4, {.lr = automatic}), ElementsAre(HasSubstr("give it a number")));
  EXPECT_THAT(problems(4, {.lr = 0.5, .rotates = true}), ElementsAre(HasSubstr("rotate_every")));
  EXPECT_THAT(problems(4, {.lr = 0.5, .keeps_fast = true}), ElementsAre(HasSubstr("owner_view")));
}

TEST(OuterMethods, AreRegisteredUnderTheirFilesNames) {
  const std::vector<std::string> stems(std::begin(plugins::outer), std::end(plugins::outer));
  EXPECT_EQ(Registry<OuterMethod>::builtin().names(), stems);
}

TEST(OuterMethods, PutEveryParameterThatTravelsInExactlyOneFragment) {
  for (const std::string& name : Registry<OuterMethod>::builtin().names()) {
    SCOPED_TRACE(name);
    std::vector<std::string> all;
    for (const auto& fragment : make_method(name, {.specs = two_specs()})->fragments()) {
      all.insert(all.end(), fragment.begin(), fragment.end());
    }
    std::sort(all.begin(), all.end());
    EXPECT_THAT(all, ElementsAre("a", "b"));
  }
}

TEST(DiLoCo, PushesAfterEveryHStepsAndAdoptsBeforeTheNextOne) {
  const auto method = make_method("diloco", {.specs = two_specs(), .steps = 3});
  EXPECT_EQ(duties(*method, 7), "...p0a0...p0a0.");
  EXPECT_EQ(method->steps_per_merge(), 3);
  EXPECT_TRUE(method->steps_locally());
  EXPECT_EQ(method->payload(), Payload::theta_end);
  EXPECT_EQ(method->arrivals_per_merge(), 0);
}

struct StreamingChoice {
  std::int64_t fragments = 2, tau = 0;
  std::string pattern = "strided";
  double alpha = 0;
};
std::unique_ptr<OuterMethod> make_streaming(const StreamingChoice& choice, OuterMethod::Context context) {
  struct Set final : FieldVisitor {
    explicit Set(const StreamingChoice& from) : wanted(from) {}
    void field(const FieldInfo&, bool&) override {}
    void field(const FieldInfo& info, std::int64_t& value) override {
      value = info.name == "tau" ? wanted.tau : wanted.fragments;
    }
    void field(const FieldInfo&, double& value) override { value = wanted.alpha; }
    void field(const FieldInfo&, std::string& value) override { value = wanted.pattern; }
    void field(const FieldInfo&, std::vector<double>&) override {}
    void field(const FieldInfo&, std::vector<std::string>&) override {}
    void group(const FieldInfo&, Settings&) override {}
    void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {
    }
    const StreamingChoice& wanted;
  };
  auto settings = Registry<OuterMethod>::builtin().make_settings("streaming");
  Set set(choice);
  settings->fields(set);
  return Registry<OuterMethod>::builtin().make("streaming", *settings, context);
}

TEST(Streaming, GivesEachFragmentATimeOfItsOwnAndPushesTauStepsEarlier) {
  EXPECT_EQ(duties(*make_streaming({.fragments = 3}, {.specs = two_specs(), .steps = 6}), 9),
            "..p0a0..p1a1..p2a2..p0a0.");
  EXPECT_EQ(duties(*make_streaming({.fragments = 2, .tau = 2}, {.specs = two_specs(), .steps = 7}), 10),
            ".p0..a0..p1..a1.p0..");
  EXPECT_EQ(duties(*make_streaming({.fragments = 1}, {.specs = two_specs(), .steps = 3}), 7),
            "...p0a0...p0a0.");
}

TEST(Streaming, DealsLayersStridedOrSequentiallyAndTensorsByBytes) {
  const std::vector<ParamSpec> specs{{"embed", {10}},     {"blocks.0.a", {3}},       {"blocks.0.b", {2}},
                                     {"blocks.1.a", {5}}, {"blocks.2.a", {5}},       {"blocks.3.a", {5}},
                                     {"head", {1}},       {"mine", {9}, Role::local}};
  const auto dealt = [&](const std::string& pattern) {
    return make_streaming({.pattern = pattern}, {.specs = specs, .steps = 4})->fragments();
  };
  using Names = std::vector<std::string>;
  // What is in no layer goes where least is: embed to the first of two equal ones, head to the other.
  EXPECT_THAT(dealt("strided"), ElementsAre(Names{"embed", "blocks.0.a", "blocks.0.b", "blocks.2.a"},
                                            Names{"blocks.1.a", "blocks.3.a", "head"}));
  EXPECT_THAT(dealt("sequential"), ElementsAre(Names{"embed", "blocks.0.a", "blocks.0.b", "blocks.1.a"},
                                               Names{"blocks.2.a", "blocks.3.a", "head"}));
  EXPECT_THAT(dealt("balanced"), ElementsAre(Names{"embed", "blocks.3.a", "head"},
                                             Names{"blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.2.a"}));
}

TEST(Streaming, RefusesWhatCannotBe) {
  const auto problems = [](const StreamingChoice& choice, OuterMethod::Context context) {
    context.specs = {{"blocks.0.w", {2}}, {"blocks.1.w", {2}}};
    return make_streaming(choice, context)->problems();
  };
  EXPECT_THAT(problems({.fragments = 2, .tau = 2}, {.steps = 6}), IsEmpty());
  EXPECT_THAT(problems({.fragments = 2, .tau = 3}, {.steps = 6}), ElementsAre(HasSubstr("outer.tau = 3")));
  EXPECT_THAT(problems({.fragments = 2}, {.steps = 1}), ElementsAre(HasSubstr("sync.steps = 1")));
  EXPECT_THAT(problems({.fragments = 3}, {.steps = 6}), ElementsAre(HasSubstr("too few layers")));
  EXPECT_THAT(problems({.alpha = 0.5}, {.steps = 6, .rotates = true}),
              ElementsAre(HasSubstr("rotate_every")));
}

TEST(DiLoCo, KeepsMomentumOnlyWhereTheRuleHasSome) {
  EXPECT_THAT(make_method("diloco", {.specs = two_specs()})->state_names(), ElementsAre("momentum"));
  EXPECT_THAT(make_method("diloco", {.specs = two_specs(), .momentum = 0})->state_names(), IsEmpty());
  EXPECT_THAT(make_method("diloco", {.specs = two_specs(), .rule = "sgd"})->state_names(), IsEmpty());
}

TEST(DiLoCo, StepsOnWhatIsCutWithARateOfItsOwn) {
  const auto method = make_method("diloco", {.specs = two_specs(), .lr = 0.5, .cut = OuterStep{0.25, 0}});
  EXPECT_THAT(method->state_names(), ElementsAre("momentum"));
  EXPECT_THAT(method->cut_state_names(), IsEmpty());
  std::vector<float> shared{1}, cut{1}, momentum{0};
  const std::vector<double> delta{1};
  const std::vector<Update> updates{{.theta = shared, .delta = delta, .state = {momentum}},
                                    {.theta = cut, .delta = delta, .state = {}, .cut = true}};
  const OuterReport report = method->apply(1, updates);
  EXPECT_FLOAT_EQ(shared[0], 1 - 0.5f * 1.9f);
  EXPECT_FLOAT_EQ(cut[0], 0.75f);
  EXPECT_EQ(report.lr, 0.5);
  EXPECT_EQ(report.cut_lr, 0.25);
}

/// Records what the coordinator's optimizer is asked for.
class RecordingStep final : public GradientStep {
 public:
  std::vector<std::string> state_names() const override { return {"exp_avg"}; }
  void apply(std::int64_t step, std::span<const Update> updates) const override {
    asked.emplace_back(step, updates.size());
  }
  mutable std::vector<std::pair<std::int64_t, std::size_t>> asked;
};

TEST(DataParallel, BringsGradientsEveryStepAndLetsTheCoordinatorStep) {
  const auto optimizer = std::make_shared<RecordingStep>();
  const auto method = make_method("data_parallel", {.specs = two_specs(), .gradient_step = optimizer});
  EXPECT_THAT(method->due(0).adopt, IsEmpty());
  for (std::int64_t step : {0, 1, 5}) EXPECT_THAT(method->due(step).push, ElementsAre(0));
  EXPECT_THAT(method->due(1).adopt, ElementsAre(0));
  EXPECT_FALSE(method->steps_locally());
  EXPECT_EQ(method->payload(), Payload::gradient);
  EXPECT_THAT(method->state_names(), ElementsAre("exp_avg"));
  const std::vector<Update> updates(2);
  method->apply(4, updates);
  EXPECT_THAT(optimizer->asked, ElementsAre(std::pair<std::int64_t, std::size_t>(4, 2)));
}

TEST(DataParallel, RefusesLocalStepsAndNeedsTheOptimizerOnlyOnTheCoordinator) {
  EXPECT_DEATH(make_method("data_parallel", {.specs = two_specs(), .steps = 2}), "sync.steps is 2");
  const auto worker_half = make_method("data_parallel", {.specs = two_specs()});
  EXPECT_THAT(worker_half->due(0).push, ElementsAre(0));
  EXPECT_DEATH(worker_half->apply(1, {}), "needs a gradient step");
}

}  // namespace
}  // namespace tessera
