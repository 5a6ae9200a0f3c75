#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "launch/config/describe.h"
#include "launch/config/outline.h"
#include "launch/config/parse.h"
#include "launch/config/write.h"
#include "tests/launch/fake_catalogs.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

class Config : public ::testing::Test {
 protected:
  Result<Recipe> parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
    return parse_recipe(text, "r.toml", overrides, fakes_.all());
  }
  std::string problems(const std::string& text, const std::vector<std::string>& overrides = {}) {
    const Result<Recipe> recipe = parse(text, overrides);
    if (recipe.ok()) return "";
    EXPECT_EQ(recipe.error().code, ExitCode::usage);
    return recipe.error().message;
  }
  testing_launch::FakeCatalogs fakes_;
};

TEST_F(Config, AnEmptyRecipeIsAllDefaultsResolved) {
  const Recipe recipe = parse("").value();
  EXPECT_EQ(recipe.slots, 4);
  EXPECT_EQ(recipe.workers, 4) << "0 means one per slot";
  EXPECT_EQ(recipe.model.family.name, "gpt");
  EXPECT_TRUE(std::isnan(recipe.outer.lr)) << "auto stays so: the merges say what it is";
}

TEST_F(Config, ReadsEverySectionAndTheChosenPlugIn) {
  const Recipe recipe = parse(R"(
slots = 2
[model]
family = "gpt"
width = 96
tied = false
[partial]
cut = "mlp"
slices = 2
[inner]
name = "sgd"
lr = 1
momentum = 0.5
[generate]
prompt = "a \"b\"\n"
)")
                            .value();
  const auto& gpt = static_cast<const testing_launch::FakeGpt&>(*recipe.model.family.settings);
  EXPECT_EQ(gpt.width, 96);
  EXPECT_FALSE(gpt.tied);
  const auto& sgd = static_cast<const testing_launch::FakeSgd&>(*recipe.inner.optimizer.settings);
  EXPECT_EQ(sgd.lr, 1.0);
  EXPECT_EQ(sgd.momentum, 0.5);
  EXPECT_EQ(recipe.generate.prompt, "a \"b\"\n");
  EXPECT_EQ(recipe.partial.slices, 2);
}

TEST_F(Config, AllProblemsAreCollectedInOrderOfTheirPlaces) {
  EXPECT_EQ(problems(R"(seed = "many"
slots = 2
workers = 3
mode = "exat"
lr = 0.1
rounds = 0

[modle]
width = 3

[model]
width = 10
heads = 4

[partial]
cut = "mlp"
slices = 4

[outer]
lr = "fast"
momentum = 1.0

[inner]
name = "adamw"
betas = [0.9, "x"]
momentum = 0.9
clipp = 1

[net]
lease_seconds = 0

[eval.every]
x = 1
)",
                     {"sync.steps=0", "device=cudo", "inner", "generate.tokens=ten", "inner.weight_dekay=0"}),
            R"(r.toml:1:8: seed wants a whole number, got "many"
r.toml:3:11: workers = 3 are more than slots = 2: a worker without a slot has no work
r.toml:4:8: mode must be one of exact, drop, got "exat"; did you mean exact?
r.toml:5:1: there is no setting lr; did you mean inner.lr?
r.toml:6:10: rounds must be at least 1, got 0
r.toml:8:2: there is no table [modle]; did you mean [model]?
r.toml:13:9: [model] heads = 4 do not divide width = 10
r.toml:17:10: partial.slices = 4 leaves 2 slices without an owner: there are only slots = 2; use at most 2 slices or more slots.
r.toml:20:6: outer.lr wants a number or auto, got "fast"
r.toml:21:12: outer.momentum must be at least 0 and less than 1, got 1
r.toml:25:9: inner.betas wants numbers in its list; "x" is none
r.toml:26:1: there is no setting inner.momentum: inner optimizer sgd has it, adamw has not
r.toml:27:1: there is no setting inner.clipp; did you mean inner.clip?
r.toml:30:17: net.lease_seconds must be between 0.1 and 3600, got 0
r.toml:32:7: eval.every is a setting, not a table
--set sync.steps: sync.steps must be at least 1, got 0
--set device: device must be one of cpu, cuda, got "cudo"; did you mean cuda?
--set generate.tokens: generate.tokens wants a whole number, got ten
--set inner.weight_dekay: there is no setting inner.weight_dekay; did you mean inner.weight_decay?
--set inner: wants setting=value, for example --set sync.steps=20)");
}

TEST_F(Config, AnUnknownPlugInIsNamedOnceAndItsSettingsAreNotBlamed) {
  EXPECT_EQ(problems("[model]\nfamily = \"gtp\"\nwidth = 64\n"),
            "r.toml:2:10: model.family: there is no model family named \"gtp\"; did you mean gpt? (known: "
            "gpt, lstm)");
}

TEST_F(Config, ASyntaxErrorHasItsPlace) {
  EXPECT_THAT(problems("seed = 1\nslots = = 2\n"), HasSubstr("r.toml:2:9: not valid TOML: "));
  EXPECT_THAT(problems("seed = 1\nseed = 2\n"), HasSubstr("r.toml:2:"));
}

TEST_F(Config, AValueInPlaceOfATableAndTheReverseAreExplained) {
  EXPECT_EQ(problems("model = \"gpt\"\n"),
            "r.toml:1:1: model is a table: write [model] and its settings below it");
  EXPECT_THAT(problems("seed = 2020-01-01\n"), HasSubstr("seed wants a whole number, got a date or time"));
  EXPECT_THAT(problems("[[model]]\nwidth=2\n"), HasSubstr("model is a table"));
}

TEST_F(Config, NumbersMustBeFinite) {
  EXPECT_THAT(problems("[inner]\nweight_decay = nan\n"),
              HasSubstr("r.toml:2:16: inner.weight_decay must be at least 0, got"));
  EXPECT_THAT(problems("[inner]\nlr = inf\n"), HasSubstr("inner.lr must be greater than 0, got inf"));
  EXPECT_THAT(problems("[sync]\ndeadline = 2.5\n"),
              HasSubstr("sync.deadline = 2.5 has no meaning in mode = \"exact\""));
}

TEST_F(Config, OverridesWinAndNeedNoQuotes) {
  const Recipe recipe = parse("slots = 2\n[data]\npath = \"x\"\n",
                              {"slots=6", "data.path=/srv/a b", "inner.betas=[0.5,0.6]", "outer.lr=0.25",
                               "outer.lr=0.5", "generate.prompt=42", "model.family=gpt", "model.tied=false",
                               "inner.name=\"sgd\"", "inner.name=adamw"})
                            .value();
  EXPECT_EQ(recipe.slots, 6);
  EXPECT_EQ(recipe.data.path, "/srv/a b");
  EXPECT_EQ(recipe.outer.lr, 0.5);
  EXPECT_EQ(recipe.generate.prompt, "42");
  EXPECT_EQ(static_cast<const testing_launch::FakeAdamw&>(*recipe.inner.optimizer.settings).betas,
            (std::vector<double>{0.5, 0.6}));
}

TEST_F(Config, WritingAndReadingGivesTheSameRecipeBitForBit) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    KeyedRandom random(seed);
    Recipe recipe(fakes_.all());
    recipe.seed = static_cast<std::int64_t>(random() >> 1);
    recipe.outer.momentum = random.uniform();
    recipe.inner.clip = std::ldexp(random.uniform(), static_cast<int>(random.below(600)) - 300);
    auto& adamw = static_cast<testing_launch::FakeAdamw&>(*recipe.inner.optimizer.settings);
    adamw.betas.assign(random.below(4), random.uniform());
    recipe.generate.prompt.clear();
    for (std::uint64_t i = random.below(20); i > 0; --i)
      recipe.generate.prompt += static_cast<char>(random.below(128));
    recipe.resolve();
    for (const bool with_help : {false, true}) {
      const std::string text = write_recipe(recipe, with_help);
      const Result<Recipe> again = parse(text);
      ASSERT_TRUE(again.ok()) << again.error().message << "\n" << text;
      EXPECT_EQ(write_recipe(*again), write_recipe(recipe));
      EXPECT_EQ(again->outer.momentum, recipe.outer.momentum);
      EXPECT_EQ(again->inner.clip, recipe.inner.clip);
      EXPECT_EQ(again->generate.prompt, recipe.generate.prompt);
      EXPECT_EQ(again->seed, recipe.seed);
      EXPECT_EQ(recipe_digest(*again), recipe_digest(recipe));
    }
  }
}

TEST_F(Config, EverySettingCanBeSetToItsWrittenValue) {
  const std::map<std::string, std::string> defaults = flat_values(parse("").value());
  EXPECT_GT(defaults.size(), 45u);
  for (const auto& [path, value] : defaults) {
    SCOPED_TRACE(path);
    const Result<Recipe> again = parse("", {path + "=" + value});
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(flat_values(*again), defaults);
  }
}

TEST_F(Config, DifferencesAreNamed) {
  const Recipe a = parse("").value(), b = parse("", {"sync.steps=7", "inner.name=sgd"}).value();
  EXPECT_NE(recipe_digest(a), recipe_digest(b));
  EXPECT_THAT(recipe_differences(a, b),
              ::testing::ElementsAre("inner.betas: [0.9, 0.95] -> (none)", "inner.lr: 0.001 -> 0.1",
                                     "inner.name: \"adamw\" -> \"sgd\"", "inner.weight_decay: 0.1 -> (none)",
                                     "sync.steps: 50 -> 7", "inner.momentum: (none) -> 0.9"));
  EXPECT_TRUE(recipe_differences(a, a).empty());
}

TEST_F(Config, AutoStaysInTheResolvedRecipe) {
  const Recipe automatic = parse("", {"outer.lr=auto"}).value();
  EXPECT_TRUE(std::isnan(automatic.outer.lr));
  const Recipe again = parse(write_recipe(automatic), {}).value();
  EXPECT_TRUE(std::isnan(again.outer.lr) && std::isnan(again.outer.cut_lr));
  EXPECT_TRUE(std::isnan(again.outer.cut_momentum));
  EXPECT_EQ(parse("", {"outer.lr=0.3"}).value().outer.lr, 0.3);
}

TEST_F(Config, SettingsThatWouldWorkAgainstEachOtherAreRefused) {
  const auto refusal = [&](std::vector<std::string> overrides) {
    overrides.insert(overrides.end(), {"partial.cut=mlp", "partial.slices=2"});
    const auto parsed = parse("", overrides);
    return parsed.ok() ? std::string() : parsed.error().message;
  };
  EXPECT_THAT(refusal({"partial.average=slots"}), HasSubstr("give outer.cut_lr a number"));
  EXPECT_EQ(refusal({"partial.average=slots", "outer.cut_lr=0.5"}), "");
  EXPECT_THAT(refusal({"outer.name=data_parallel", "sync.steps=1", "partial.owner_view=fast"}),
              HasSubstr("gradients"));
  EXPECT_THAT(
      refusal({"outer.name=data_parallel", "sync.steps=1", "partial.assign=block", "partial.rotate_every=1"}),
      HasSubstr("whenever their turn came"));
}

TEST_F(Config, BoundsReadAsWords) {
  EXPECT_EQ(bounds_in_words(at_least(1)), "at least 1");
  EXPECT_EQ(bounds_in_words(positive()), "greater than 0");
  EXPECT_EQ(bounds_in_words(fraction()), "between 0 and 1");
  EXPECT_EQ(bounds_in_words(below_one()), "at least 0 and less than 1");
  EXPECT_EQ(bounds_in_words({.max = 2.5}), "at most 2.5");
  EXPECT_EQ(bounds_in_words(one_of({"a", "b"})), "one of a, b");
  EXPECT_EQ(bounds_in_words(anything()), "");
}

TEST_F(Config, DescribeKnowsTablesSettingsKindsAndPlugIns) {
  const Catalogs all = fakes_.all();
  auto text = [&](const std::string& what, const std::string& name = "") {
    return describe(all, what, name).value();
  };
  EXPECT_THAT(text(""),
              ::testing::AllOf(HasSubstr("[sync]"), HasSubstr("lease_seconds"), HasSubstr("weight_decay")));
  EXPECT_THAT(text("sync"), HasSubstr("  steps          = 50"));
  EXPECT_EQ(text("sync.steps"),
            "sync.steps: inner steps H that a slot takes between two merges\n"
            "  default  50\n  type     whole number\n  values   at least 1\n");
  EXPECT_EQ(text("sync", "steps"), text("sync.steps"));
  EXPECT_THAT(text("optimizer"), ::testing::AllOf(HasSubstr("adamw"), HasSubstr("sgd")));
  EXPECT_THAT(text("optimizer", "sgd"), HasSubstr("momentum"));
  EXPECT_THAT(text("schedule"), ::testing::AllOf(HasSubstr("cosine"), HasSubstr("[schedule]")));
  EXPECT_THAT(describe(all, "optimiser").error().message, HasSubstr("did you mean optimizer?"));
  EXPECT_THAT(describe(all, "optimizer", "adamv").error().message, HasSubstr("did you mean adamw?"));
  EXPECT_THAT(describe(all, "sync.stepz").error().message, HasSubstr("did you mean sync.steps?"));
}

TEST_F(Config, TheMarkdownHasEverySettingOfEveryPlugIn) {
  const std::string page = config_markdown(fakes_.all());
  for (const OutlineTable& table : outline_of(*std::make_unique<Recipe>(fakes_.all()))) {
    for (const OutlineField& field : table.fields)
      EXPECT_THAT(page, HasSubstr("| `" + field.name + "` | `" + field.value));
  }
  EXPECT_THAT(page, HasSubstr("**inner optimizer `sgd`**"));
  EXPECT_THAT(page, HasSubstr("| `momentum` | `0.9` | at least 0 and less than 1 | momentum |"));
}

TEST_F(Config, AMissingFileIsNamed) {
  const Result<Recipe> recipe = load_recipe("/nowhere/r.toml", {}, fakes_.all());
  ASSERT_FALSE(recipe.ok());
  EXPECT_EQ(recipe.error().message, "there is no recipe file /nowhere/r.toml");
}

}  // namespace
}  // namespace tessera
