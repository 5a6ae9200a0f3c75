// From results to numbers, verdicts and words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "launch/reproduce/measure.h"
#include "launch/reproduce/report.h"
#include "tests/launch/reproduce_fixtures.h"

namespace tessera {
namespace {

using namespace testing_reproduce;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr const char* claims_toml = R"(
[claims.close]
text = "within 2 %"
arm = "cut"
margin = 0.02
[claims.better]
text = "better"
arm = "cut"
margin = 0.0
[claims.flops]
text = "equal FLOPs"
kind = "equal_flops"
arm = "cut"
[claims.gap]
text = "half of the gap"
kind = "gap"
arm = "cut"
than = "parallel"
[claims.ten_times]
text = "a tenth of the bytes"
kind = "bytes"
factor = 10
arm = "cut"
against = "parallel"
[claims.twelve_times]
text = "a twelfth of the bytes"
kind = "bytes"
factor = 12
arm = "cut"
against = "parallel"
)";

class ReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    scratch_.write("test/base.toml", base_toml);
    scratch_.write("test/arms.toml", arms_toml);
    scratch_.write("test/claims.toml", claims_toml);
    Result<ExperimentSpec> spec = load_experiment(scratch_.path() + "/test");
    ASSERT_TRUE(spec.ok()) << spec.error().message;
    spec_ = std::move(*spec);
    Result<std::vector<Claim>> claims = load_claims(scratch_.path() + "/test/claims.toml", spec_);
    ASSERT_TRUE(claims.ok()) << claims.error().message;
    claims_ = std::move(*claims);
  }

  const ProfileSpec& profile() const { return spec_.profiles.at("full"); }

  /// The experiment, run with these losses by arm and seed (from 1).
  std::vector<UnitStatus> run(std::map<std::string, std::vector<double>> losses) {
    FakeRunner runner([&](const UnitJob& job) -> Result<double> {
      if (job.unit.tuning()) return 3.0;
      const std::vector<double>& of_arm = losses[job.unit.arm];
      const auto seed = static_cast<std::size_t>(job.unit.seed);
      if (seed > of_arm.size()) return fail(ExitCode::failed, "not today");
      return of_arm[seed - 1];
    });
    Campaign campaign(spec_, profile(), fake_resolve(spec_),
                      {.results = scratch_.path() + "/results", .jobs = 1});
    campaign.run(
        runner, [] { return false; }, [](const std::string&) {});
    tuned_ = campaign.tuned();
    return campaign.look();
  }
  std::map<std::string, ClaimVerdict> verdicts(const std::vector<UnitStatus>& units) {
    std::map<std::string, ClaimVerdict> found;
    const CoverSpec& cover = profile().covers.front();
    for (const ClaimVerdict& verdict : judge(claims_, cover, runs_of(spec_, cover, units)))
      found[verdict.claim->name] = verdict;
    return found;
  }

  ScratchFolder scratch_;
  ExperimentSpec spec_;
  std::vector<Claim> claims_;
  std::map<std::string, GridPoint> tuned_;
};

TEST_F(ReportTest, VerdictsComeFromPairedDifferences) {
  // Seeds differ by far more than the arms; the paired differences are 1, 1.1 and 0.9 % all the same.
  auto found =
      verdicts(run({{"diloco", {1, 2, 3}}, {"cut", {1.01, 2.022, 3.027}}, {"parallel", {1.04, 2.08, 3.12}}}));
  EXPECT_NEAR(found["close"].interval.mean, 0.01, 1e-12);
  EXPECT_NEAR(found["close"].interval.high - 0.01, 4.302652729749 * 0.001 / std::sqrt(3), 1e-12);
  EXPECT_EQ(found["close"].verdict, Verdict::holds);
  EXPECT_EQ(found["better"].verdict, Verdict::fails);
  EXPECT_NEAR(found["gap"].interval.mean, 0.01 - 0.5 * 0.04, 1e-12);
  EXPECT_EQ(found["gap"].verdict, Verdict::holds);
  // The cut's end is at 85 % of DiLoCo's operations: curves fall by 1 over the run, evaluated at every
  // quarter.
  EXPECT_NEAR(found["flops"].interval.mean, (1.01 / 1.15 + 2.022 / 2.15 + 3.027 / 3.15) / 3 - 1, 1e-12);
  EXPECT_EQ(found["flops"].verdict, Verdict::undecided) << "three values between -12 and -4 %";
  // "parallel" merges ten times as often, and each merge moves as much.
  EXPECT_EQ(found["ten_times"].verdict, Verdict::holds);
  EXPECT_NEAR(found["twelve_times"].interval.mean, 0.2, 1e-12);
  EXPECT_EQ(found["twelve_times"].verdict, Verdict::fails);
}

TEST_F(ReportTest, NoisyOrMissingSeedsLeaveAClaimUndecided) {
  auto found = verdicts(run({{"diloco", {2, 2, 2}}, {"cut", {2.0, 2.02, 2.10}}, {"parallel", {2, 2}}}));
  EXPECT_EQ(found["close"].verdict, Verdict::undecided);
  EXPECT_EQ(found["gap"].interval.count, 2) << "pairs only";
  EXPECT_EQ(found["gap"].verdict, Verdict::undecided)
      << "a verdict on two of three seeds would be one on survivors";
  EXPECT_THAT(found["gap"].note, HasSubstr("2 of 3 seeds"));
  found = verdicts(run({}));
  EXPECT_EQ(found["close"].interval.count, 3) << "results stay";
}

// Two seeds of the main cover and three of its own: both are judged, each on its seeds alone.
TEST_F(ReportTest, ACoverMayHaveSeedsOfItsOwn) {
  ScratchFolder folder;
  folder.write("base.toml", base_toml);
  folder.write("arms.toml",
               replaced(replaced(arms_toml, "seeds = [1, 2, 3]", "seeds = [1, 2]"), "[plots.all]",
                        "[profiles.full.covers.more]\nsize = \"s\"\ndata = \"text\"\n"
                        "arms = [\"diloco\", \"cut\"]\nseeds = [3, 4, 5]\n[plots.all]"));
  Result<ExperimentSpec> spec = load_experiment(folder.path());
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  spec_ = *spec;
  const auto units =
      run({{"diloco", {2, 2, 2, 2, 2}}, {"cut", {2.0, 2.002, 2.1, 2.102, 2.104}}, {"parallel", {2, 2}}});
  const std::vector<CoverSpec>& covers = profile().covers;
  ASSERT_EQ(covers.size(), 2u);
  EXPECT_EQ(find_runs(runs_of(spec_, covers[0], units), "cut")->by_seed.size(), 2u);
  const std::vector<ClaimVerdict> more = judge(claims_, covers[1], runs_of(spec_, covers[1], units));
  const auto close =
      std::ranges::find_if(more, [](const auto& verdict) { return verdict.claim->name == "close"; });
  ASSERT_NE(close, more.end());
  EXPECT_NEAR(close->interval.mean, 0.051, 1e-12);
  EXPECT_EQ(close->interval.count, 3);
  EXPECT_EQ(close->verdict, Verdict::fails);
}

TEST_F(ReportTest, MissingArmsAreNamed) {
  auto found = verdicts(run({{"diloco", {2, 2, 2}}, {"cut", {2}}}));
  EXPECT_EQ(found["close"].verdict, Verdict::undecided);
  EXPECT_THAT(found["close"].note, HasSubstr("1 of 3 seeds so far"));
  EXPECT_THAT(found["gap"].note, HasSubstr("no runs of parallel"));
}

TEST_F(ReportTest, CurvesAreReadBetweenTheirPoints) {
  const std::vector<CurvePoint> curve{{.flops = 10, .eval_loss = 4}, {.flops = 20, .eval_loss = 2}};
  EXPECT_DOUBLE_EQ(eval_loss_at(curve, 10), 4);
  EXPECT_DOUBLE_EQ(eval_loss_at(curve, 17.5), 2.5);
  EXPECT_DOUBLE_EQ(eval_loss_at(curve, 20), 2);
  EXPECT_TRUE(std::isnan(eval_loss_at(curve, 21)));
  EXPECT_TRUE(std::isnan(eval_loss_at(curve, 9)));
}

TEST_F(ReportTest, TheReportSaysWhatIsThereAndWhatIsNot) {
  const std::vector<UnitStatus> units =
      run({{"diloco", {2, 2.1, 2.2}}, {"cut", {2.02, 2.12, 2.22}}, {"parallel", {1.9}}});
  const std::string file = scratch_.path() + "/docs/results/test.md";
  ASSERT_TRUE(
      write_report({spec_, profile(), claims_, units, tuned_}, file, scratch_.path() + "/docs/results/test")
          .ok());
  std::ifstream in(file);
  const std::string report{std::istreambuf_iterator<char>(in), {}};
  EXPECT_THAT(report, HasSubstr("| diloco | 2.1000 ± 0.1000 (3) | - |"));
  EXPECT_THAT(report, HasSubstr("| the cut | 2.1200 ± 0.1000 (3) | +0.95 % ["));
  EXPECT_THAT(report, HasSubstr("(-15.0 %)")) << "FLOPs of the cut";
  EXPECT_THAT(report, HasSubstr("| parallel | 1.9000 (1) | -5.00 % (one seed) |"));
  EXPECT_THAT(report, HasSubstr("| within 2 % | +0.95 % ["));
  EXPECT_THAT(report, HasSubstr("not today: 2 units, parallel-s-text-seed2, parallel-s-text-seed3"));
  EXPECT_THAT(report, HasSubstr("| diloco | low | low 3.0000, mid 3.0000, high 3.0000 |"));
  EXPECT_THAT(report, HasSubstr("![main-all-10mbit.svg](test/main-all-10mbit.svg)"));
  EXPECT_TRUE(std::filesystem::exists(scratch_.path() + "/docs/results/test/main-all-tokens.svg"));
}

TEST_F(ReportTest, TimeOnALinkIsComputeAndTransferOfARound) {
  const std::vector<UnitStatus> units = run({{"diloco", {2}}, {"cut", {2}}});
  const std::vector<ArmRuns> runs = runs_of(spec_, profile().covers.front(), units);
  const ArmRuns& diloco = *find_runs(runs, "diloco");
  // 8 rounds of 4 slots x 10 steps x 100 operations in 10 s of compute, of which the process had half a core:
  // a slot's round takes 5/32 s.
  EXPECT_NEAR(diloco.flops_per_second(), 8 * 4000 / 5.0, 1e-9);
  EXPECT_NEAR(diloco.round_seconds(0), 5.0 / 32, 1e-12);
  EXPECT_NEAR(diloco.round_seconds(0.008), 5.0 / 32 + 2 * 500 * 8 / 8000.0, 1e-12) << "500 bytes each way";
}

TEST(UnitResultFile, IsReadBackAsItWasWritten) {
  UnitResult result;
  result.unit = {"a-s-t-tune-p", "a", "s", "t", "p", 7, true};
  result.recipe = {{"outer.lr", "0.7"}, {"model.family", "\"gpt\""}};
  result.recipe_hash = recipe_hash_of(result.recipe);
  result.final_loss = 1.0 / 3;
  result.bits_per_byte = std::numeric_limits<double>::quiet_NaN();
  result.curve = {{1, 2, 3, 4, 5, 6}, {2, 3, 4, 5, 6, std::numeric_limits<double>::infinity()}};
  const Result<UnitResult> read = parse_unit_result(json_of(result), "file");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->unit.name, result.unit.name);
  EXPECT_EQ(read->unit.point, "p");
  EXPECT_EQ(read->unit.seed, 7);
  EXPECT_TRUE(read->unit.processes);
  EXPECT_EQ(read->recipe, result.recipe);
  EXPECT_EQ(read->final_loss, result.final_loss) << "bit for bit";
  EXPECT_TRUE(std::isnan(read->bits_per_byte)) << "JSON has no NaN";
  ASSERT_THAT(read->curve, SizeIs(2));
  EXPECT_EQ(read->curve[0].eval_loss, 6);
  EXPECT_TRUE(std::isnan(read->curve[1].eval_loss));
  EXPECT_EQ(json_of(*read), json_of(result));
}

class MeasureTest : public ReportTest {
 protected:
  UnitJob job() {
    const Result<Composed> composed =
        compose(spec_, profile(), {"cut-s-text-seed1", "cut", "s", "text", "", 1, false},
                [](const ArmSpec&) { return GridPoint{}; });
    EXPECT_TRUE(composed.ok());
    return {{"cut-s-text-seed1", "cut", "s", "text", "", 1, false},
            *composed,
            *fake_resolve(spec_)(composed->overrides)};
  }
  static std::string row(int round, double loss, const std::string& more) {
    return "{\"round\":" + std::to_string(round) + ",\"units\":2560.0,\"loss\":" + std::to_string(loss) +
           ",\"bytes_up\":2010,\"bytes_down\":2020,\"contributions\":4,\"seconds\":{\"compute\":0.5},\"state_"
           "hash\":\"h" +
           std::to_string(round) + "\"" + more + "}\n";
  }
};

TEST_F(MeasureTest, RowsBecomeACurve) {
  std::string rows;
  for (int round = 1; round <= 8; ++round)
    rows += row(round, 5 - 0.25 * round, round % 2 == 0 ? ",\"eval_loss\":" + std::to_string(4 - round) : "");
  scratch_.write("metrics.jsonl", rows);
  const Result<UnitResult> result = measure_run(job(), false, scratch_.path() + "/metrics.jsonl");
  ASSERT_TRUE(result.ok()) << result.error().message;
  ASSERT_THAT(result->curve, SizeIs(4));
  EXPECT_EQ(result->curve[1].round, 4);
  EXPECT_EQ(result->curve[1].tokens, 4 * 2560);
  EXPECT_EQ(result->curve[1].flops, 4 * 4 * 10 * 85);
  EXPECT_EQ(result->curve[1].bytes, 4 * 4 * 1000);
  EXPECT_NEAR(result->curve[1].train_loss, 5 - 0.25 * 3.5, 1e-12) << "rounds 3 and 4";
  EXPECT_EQ(result->curve[3].eval_loss, -4);
  EXPECT_EQ(result->measured_up, 8 * 2010);
  EXPECT_EQ(result->bytes_up, 8 * 4 * 500);
  EXPECT_EQ(result->compute_seconds, 8 * 4 * 0.5);
  EXPECT_EQ(result->state_hash, "h8");
  EXPECT_EQ(measure_run(job(), true, scratch_.path() + "/metrics.jsonl")->bytes_up, 0) << "alone";
}

TEST_F(MeasureTest, StepsAfterTheLastContributionDoNotCount) {
  UnitJob late = job();
  late.resolved.tail_steps = 2;  // of 80
  std::string rows;
  for (int round = 1; round <= 8; ++round)
    rows += replaced(row(round, 3, ""), "2560", round == 1 ? "2048" : "2560");
  scratch_.write("metrics.jsonl", rows);
  const Result<UnitResult> result = measure_run(late, false, scratch_.path() + "/metrics.jsonl");
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result->tokens, 20480 - 2 * 4 * 64);
  EXPECT_FALSE(measure_run(job(), false, scratch_.path() + "/metrics.jsonl").ok()) << "no tail expected";
}

TEST_F(MeasureTest, RefusesRunsThatAreNotWhole) {
  scratch_.write("metrics.jsonl", row(1, 3, "") + row(3, 3, ""));
  EXPECT_THAT(measure_run(job(), false, scratch_.path() + "/metrics.jsonl").error().message,
              HasSubstr("no good row for round 2"));
  scratch_.write("metrics.jsonl", row(1, 3, ""));
  EXPECT_THAT(measure_run(job(), false, scratch_.path() + "/metrics.jsonl").error().message,
              HasSubstr("1 of 8 rounds"));
  std::string rows;
  for (int round = 1; round <= 8; ++round) rows += replaced(row(round, 3, ""), "2560", "2561");
  scratch_.write("metrics.jsonl", rows);
  EXPECT_THAT(measure_run(job(), false, scratch_.path() + "/metrics.jsonl").error().message,
              HasSubstr("consumed 20488 tokens, but its recipe means 20480"));
  EXPECT_FALSE(parse_final_score("warning: something").ok());
  EXPECT_TRUE(std::isnan(parse_final_score("{\"model\": {\"loss\": null}}")->loss)) << "a diverged model";
  EXPECT_EQ(parse_final_score("a warning\n{\"model\": {\"loss\": 1.5, \"units\": 10}}")->loss, 1.5);
}

// Every experiment of the source tree can be read, and its claims speak of arms that are run.
TEST(Experiments, OfTheSourceTreeAreInOrder) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TESSERA_SOURCE_DIR "/recipes")) {
    if (!std::filesystem::exists(entry.path() / "arms.toml")) continue;
    ++found;
    SCOPED_TRACE(entry.path());
    const Result<ExperimentSpec> spec = load_experiment(entry.path().string());
    ASSERT_TRUE(spec.ok()) << spec.error().message;
    const Result<std::vector<Claim>> claims = load_claims((entry.path() / "claims.toml").string(), *spec);
    ASSERT_TRUE(claims.ok()) << claims.error().message;
    ASSERT_TRUE(spec->profiles.count("full") == 1 && spec->profiles.count("quick") == 1);
    for (const auto& [name, profile] : spec->profiles) {
      for (const Unit& unit : units_of(*spec, profile)) {
        const Result<Composed> composed =
            compose(*spec, profile, unit, [](const ArmSpec&) { return GridPoint{}; });
        ASSERT_TRUE(composed.ok()) << unit.name << ": " << composed.error().message;
      }
    }
    const CoverSpec& main = spec->profiles.at("full").covers.front();
    for (const Claim& claim : *claims) {
      for (const std::string& arm : {claim.arm, claim.against, claim.than}) {
        EXPECT_TRUE(arm.empty() || std::count(main.arms.begin(), main.arms.end(), arm) == 1)
            << claim.name << " " << arm;
      }
    }
    for (const PlotSpec& plot : spec->plots) EXPECT_LE(plot.arms.size(), 8u) << plot.name << ": colours";
    for (const CorpusSpec& corpus : spec->corpora)
      EXPECT_TRUE(std::filesystem::exists(std::string(TESSERA_SOURCE_DIR "/") + corpus.script))
          << corpus.name;
  }
  EXPECT_GE(found, 1);
}

}  // namespace
}  // namespace tessera
