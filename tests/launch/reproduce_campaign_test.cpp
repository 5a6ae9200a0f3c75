// The harness with a runner that trains nothing: what is run, skipped, stale, kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/launch/reproduce_fixtures.h"

namespace tessera {
namespace {

using namespace testing_reproduce;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

/// Best at outer.lr 0.5 and inner.lr 0.006; the cut costs a little; seeds differ.
Result<double> bowl(const UnitJob& job) {
  const auto& recipe = job.resolved.recipe;
  const double outer = number_in(recipe, "outer.lr", 0.5), inner = number_in(recipe, "inner.lr", 0);
  return 2 + std::abs(outer - 0.5) + std::abs(inner - 0.006) + (recipe.count("partial.cut") > 0 ? 0.01 : 0) +
         0.1 * number_in(recipe, "seed", 0);
}

class CampaignTest : public ::testing::Test {
 protected:
  void SetUp() override { load(); }

  void load(const std::string& base = base_toml, const std::string& arms = arms_toml) {
    scratch_.write("test/base.toml", base);
    scratch_.write("test/arms.toml", arms);
    Result<ExperimentSpec> spec = load_experiment(scratch_.path() + "/test");
    ASSERT_TRUE(spec.ok()) << spec.error().message;
    spec_ = std::move(*spec);
  }
  std::string results() const { return scratch_.path() + "/results"; }
  Campaign campaign(CampaignOptions options = {}, std::map<std::string, std::string> extra = {}) {
    options.results = results();
    return Campaign(spec_, spec_.profiles.at("full"), fake_resolve(spec_, std::move(extra)), options);
  }
  CampaignEnd run(FakeRunner& runner, CampaignOptions options = {},
                  std::map<std::string, std::string> extra = {}) {
    said_.clear();
    return campaign(options, std::move(extra))
        .run(
            runner, [] { return false; }, [this](const std::string& line) { said_.push_back(line); });
  }
  UnitResult result(const std::string& unit) {
    Result<UnitResult> found = read_unit_result(results() + "/" + unit + ".json");
    EXPECT_TRUE(found.ok()) << (found.ok() ? "" : found.error().message);
    return found.ok() ? *found : UnitResult{};
  }
  std::map<std::string, UnitState> states(Campaign& campaign) {
    std::map<std::string, UnitState> states;
    for (const UnitStatus& status : campaign.look()) states[status.unit.name] = status.state;
    return states;
  }

  ScratchFolder scratch_;
  ExperimentSpec spec_;
  std::vector<std::string> said_;
};

constexpr int all_units = 2 + 3 + 3 * 3;

TEST_F(CampaignTest, TunesFirstAndReportsWithWhatWasTuned) {
  FakeRunner runner(bowl);
  const CampaignEnd end = run(runner, {.jobs = 2});
  EXPECT_EQ(end.ran, all_units);
  EXPECT_EQ(end.failed, 0);
  EXPECT_EQ(runner.most_at_once, 2u);
  EXPECT_THAT(runner.prepared, ElementsAre("text")) << "once";
  const UnitResult cut = result("cut-s-text-seed2");
  EXPECT_EQ(cut.recipe.at("outer.lr"), "0.5") << "DiLoCo's best point";
  EXPECT_EQ(cut.recipe.at("inner.lr"), "0.006");
  EXPECT_EQ(cut.recipe.at("seed"), "2");
  EXPECT_EQ(cut.recipe.at("model.width"), "32");
  const UnitResult tuning = result("diloco-s-text-tune-low");
  EXPECT_EQ(tuning.recipe.at("rounds"), "4") << "half of the budget";
  EXPECT_EQ(tuning.recipe.at("seed"), "9");
  const UnitResult parallel = result("parallel-s-text-seed1");
  EXPECT_EQ(parallel.recipe.at("rounds"), "80");
  EXPECT_EQ(parallel.recipe.at("sync.steps"), "1");
  EXPECT_EQ(parallel.tokens, cut.tokens);
}

TEST_F(CampaignTest, SkipsWhatIsThere) {
  FakeRunner first(bowl), second(bowl);
  run(first, {.only = "diloco*tune*"});
  EXPECT_THAT(first.started, IsEmpty()) << "it waits for the inner rate, which was not asked for";
  run(first, {.only = "rate*one"});
  run(first, {.only = "diloco*tune*"});
  EXPECT_THAT(first.started, ElementsAre("rate-s-text-tune-one")) << "one point of two chooses nothing";
  run(first, {.only = "rate*"});
  EXPECT_EQ(first.started.size(), 2u);
  run(first);
  EXPECT_EQ(first.started.size(), static_cast<std::size_t>(all_units));
  const CampaignEnd end = run(second);
  EXPECT_THAT(second.started, IsEmpty());
  EXPECT_EQ(end.ran + end.failed, 0);
}

TEST_F(CampaignTest, AChangedRecipeMakesResultsStaleAndIsNamed) {
  FakeRunner runner(bowl), later(bowl);
  run(runner);
  load(replaced(base_toml, "slots = 4", "slots = 8"));
  run(later);
  EXPECT_THAT(later.started, IsEmpty()) << "stale results are not thrown away unasked";
  EXPECT_THAT(said_, Contains(AllOf(HasSubstr("stale"), HasSubstr("slots: 4 -> 8"))));
  Campaign again = campaign();
  EXPECT_EQ(states(again).at("rate-s-text-tune-one"), UnitState::stale);
  EXPECT_EQ(states(again).at("cut-s-text-seed1"), UnitState::waiting) << "stale tuning tunes nothing";
  EXPECT_EQ(run(later, {.redo_stale = true}).ran, all_units);
  EXPECT_EQ(result("cut-s-text-seed1").recipe.at("slots"), "8");
}

TEST_F(CampaignTest, ASettingThatCameLaterMakesNothingStaleUnlessTheFilesSayIt) {
  FakeRunner runner(bowl), later(bowl);
  run(runner);
  run(later, {}, {{"outer.newcomer", "0"}});
  EXPECT_THAT(later.started, IsEmpty());
  EXPECT_THAT(said_, IsEmpty());
  load(std::string(base_toml) + "[outer]\nnewcomer = 1\n");
  run(later);
  EXPECT_THAT(said_, Contains(HasSubstr("outer.newcomer: (unknown then) -> 1")));
}

TEST_F(CampaignTest, AnArmThatCannotRunDoesNotStopTheOthers) {
  load(base_toml, replaced(arms_toml, "set.partial.cut = \"mlp\"", "set.partial.unknown = 3"));
  FakeRunner runner(bowl);
  const CampaignEnd end = run(runner);
  EXPECT_EQ(end.ran, all_units - 3);
  EXPECT_EQ(end.failed, 3);
  EXPECT_THAT(said_.front(),
              AllOf(HasSubstr("cut-s-text-seed1 and 2 more"), HasSubstr("no setting partial.unknown")));
}

TEST_F(CampaignTest, AFailedPointLeavesTheOthersToChooseFrom) {
  FakeRunner runner([](const UnitJob& job) -> Result<double> {
    if (job.unit.point == "mid") return fail(ExitCode::failed, "killed");
    if (job.unit.point == "one") return std::nan("");  // diverged: a result, and not the best
    return bowl(job);
  });
  const CampaignEnd end = run(runner);
  EXPECT_EQ(end.failed, 1);
  EXPECT_EQ(result("diloco-s-text-tune-low").recipe.at("inner.lr"), "0.006");
  EXPECT_EQ(result("cut-s-text-seed1").recipe.at("outer.lr"), "0.2") << "0.3 from the best, 0.9 is 0.4";
  FakeRunner retry(bowl);
  run(retry);
  EXPECT_THAT(retry.started, ElementsAre("diloco-s-text-tune-mid")) << "a failure is tried again next time";
  EXPECT_THAT(said_, Contains(HasSubstr("diloco-s-text-tune-mid")));
  EXPECT_THAT(said_.back(), HasSubstr("outer.lr: 0.2 -> 0.5")) << "the seeds that ran with another point";
  Campaign now = campaign();
  EXPECT_EQ(states(now).at("cut-s-text-seed1"), UnitState::stale)
      << "the point that it used is not the best now";
}

TEST_F(CampaignTest, WithoutAnyPointTheArmFailsAndSaysSo) {
  FakeRunner runner([](const UnitJob& job) -> Result<double> {
    if (job.unit.arm == "diloco") return fail(ExitCode::failed, "diverged");
    return bowl(job);
  });
  Campaign campaign = this->campaign();
  const CampaignEnd end = campaign.run(
      runner, [] { return false; }, [this](const std::string& line) { said_.push_back(line); });
  EXPECT_EQ(end.failed, 3 + 3 + 3) << "the points, and the seeds of DiLoCo and of the cut";
  EXPECT_THAT(said_.back(),
              HasSubstr("diloco-s-text-seed1 and 5 more: cannot run: no point of the grid of diloco"));
  EXPECT_EQ(end.ran, 2 + 3) << "the inner rate and data parallel";
  for (const UnitStatus& status : campaign.look()) {
    if (status.unit.name != "cut-s-text-seed1") continue;
    EXPECT_EQ(status.state, UnitState::failed);
    EXPECT_THAT(status.why, HasSubstr("no point of the grid of diloco"));
  }
}

TEST_F(CampaignTest, AnInterruptionKeepsWhatIsFinishedAndNothingElse) {
  FakeRunner runner(bowl), later(bowl);
  const auto stop = [&runner] { return runner.started.size() >= 5; };
  Campaign campaign = this->campaign({.jobs = 2});
  const CampaignEnd end = campaign.run(runner, stop, [](const std::string&) {});
  EXPECT_TRUE(end.interrupted);
  EXPECT_EQ(runner.stopped, 1u) << "five were started, four had ended";
  EXPECT_EQ(end.ran, 4);
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(results())) files += entry.is_regular_file();
  EXPECT_EQ(files, 4u);
  EXPECT_EQ(run(later).ran, all_units - 4);
}

TEST_F(CampaignTest, ADamagedResultIsNotOverwritten) {
  FakeRunner runner(bowl), later(bowl);
  run(runner);
  std::string text = json_of(result("cut-s-text-seed1"));
  scratch_.write("results/cut-s-text-seed1.json", replaced(text, "\"slots\":\"4\"", "\"slots\":\"5\""));
  scratch_.write("results/cut-s-text-seed2.json", text.substr(0, 100));
  const CampaignEnd end = run(later);
  EXPECT_THAT(later.started, IsEmpty());
  EXPECT_EQ(end.failed, 2);
  EXPECT_THAT(said_, Contains(HasSubstr("changed by hand")));
  EXPECT_THAT(said_, Contains(HasSubstr("no result of a unit")));
}

TEST_F(CampaignTest, UnequalTokensAreAnError) {
  load(base_toml, replaced(arms_toml, "sync.steps = 0.1", "sync.steps = 0.2"));
  FakeRunner runner(bowl);
  EXPECT_EQ(run(runner).failed, 3);
  EXPECT_THAT(said_, Contains(HasSubstr("compared at equal tokens")));
  load(base_toml, replaced(arms_toml, "sync.steps = 0.1", "sync.steps = 0.15"));
  FakeRunner halves(bowl);
  run(halves);
  EXPECT_THAT(said_, Contains(HasSubstr("times 0.15 is 1.5, not a whole number")));
}

TEST_F(CampaignTest, WithoutTextItsUnitsFail) {
  FakeRunner runner(bowl);
  runner.no_corpus = true;
  const CampaignEnd end = run(runner);
  EXPECT_THAT(runner.started, IsEmpty());
  EXPECT_THAT(runner.prepared, ElementsAre("text"));
  EXPECT_EQ(end.ran, 0);
  EXPECT_GT(end.failed, 0);
}

TEST_F(CampaignTest, MistakesInTheFilesAreCollected) {
  scratch_.write("bad/base.toml", base_toml);
  std::string arms = replaced(arms_toml, "inherits = [\"rate\"]", "inherits = [\"cut\"]");
  arms = replaced(arms, "tuning_seed = 9", "tuning_seed = 2");
  arms = replaced(arms, "arms = [\"diloco\", \"cut\"]", "arms = [\"dilco\"]");
  scratch_.write("bad/arms.toml", arms);
  const Result<ExperimentSpec> spec = load_experiment(scratch_.path() + "/bad");
  ASSERT_FALSE(spec.ok());
  EXPECT_EQ(spec.error().code, ExitCode::usage);
  EXPECT_THAT(spec.error().message,
              AllOf(HasSubstr("arms.diloco.inherits names cut"),
                    HasSubstr("tuning_seed = 2 is also a reported seed"), HasSubstr("did you mean diloco?")));
}

}  // namespace
}  // namespace tessera
