// The command line and the pages that are generated from what is linked in.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "launch/catalogs.h"
#include "launch/config/describe.h"
#include "launch/config/outline.h"
#include "launch/config/parse.h"
#include "launch/config/write.h"
#include "tests/launch/torch/command_fixture.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using testing_launch::tessera;

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(CommandLine, TheOverviewNamesEveryCommand) {
  const auto bare = tessera({}), help = tessera({"--help"});
  EXPECT_EQ(bare.code, 0);
  EXPECT_EQ(bare.out, help.out);
  for (const char* command : {"train", "debug", "run", "coordinator", "worker", "plan", "eval", "generate",
                              "inspect", "diff", "describe"}) {
    EXPECT_THAT(help.out, HasSubstr("\n  " + std::string(command) + " "));
    const auto own = tessera({command, "--help"});
    EXPECT_EQ(own.code, 0) << command;
    EXPECT_THAT(own.out, HasSubstr("Usage: tessera " + std::string(command)));
  }
  EXPECT_THAT(tessera({"--version"}).out, ::testing::MatchesRegex("tessera [0-9.]+ \\(build [0-9a-f]+\\)\n"));
}

TEST(CommandLine, MistakesEndWithTwoAndTheNearestName) {
  const auto command = tessera({"trian", "x.toml"});
  EXPECT_EQ(command.code, 2);
  EXPECT_THAT(command.err, HasSubstr("did you mean train?"));
  EXPECT_EQ(tessera({"plan"}).code, 2) << "no recipe";
  EXPECT_EQ(tessera({"plan", TESSERA_SOURCE_DIR "/recipes/tiny.toml", "--nosuch"}).code, 2);
  const auto missing = tessera({"plan", "/nowhere.toml"});
  EXPECT_EQ(missing.code, 2);
  EXPECT_EQ(missing.err, "tessera: there is no recipe file /nowhere.toml\n");
  const auto typo =
      tessera({"plan", TESSERA_SOURCE_DIR "/recipes/tiny.toml", "--set", "sync.stepz=4", "--workers", "9"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_THAT(typo.err,
              ::testing::AllOf(
                  HasSubstr("--set sync.stepz: there is no setting sync.stepz; did you mean sync.steps?"),
                  HasSubstr("--set workers: workers = 9 are more than slots = 2")));
}

TEST(CommandLine, DescribeKnowsWhatIsLinkedIn) {
  EXPECT_THAT(tessera({"describe"}).out,
              ::testing::AllOf(HasSubstr("[inner]"), HasSubstr("adamw"), HasSubstr("diloco")));
  EXPECT_THAT(tessera({"describe", "optimizer", "sgd"}).out, HasSubstr("nesterov"));
  EXPECT_EQ(tessera({"describe", "optimizer", "sdg"}).code, 2);
}

TEST(Recipes, ThoseInTheTreeAreValid) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TESSERA_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() != ".toml") continue;
    ++found;
    const Result<Recipe> recipe = load_recipe(entry.path().string(), {}, builtin_catalogs());
    ASSERT_TRUE(recipe.ok()) << recipe.error().message;
    const Result<Recipe> again = parse_recipe(write_recipe(*recipe), "again", {}, builtin_catalogs());
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(recipe_digest(*again), recipe_digest(*recipe));
  }
  EXPECT_GE(found, 2);
}

TEST(Recipes, DefaultsOfEveryPlugInAreWithinTheirOwnBounds) {
  const Catalogs c = builtin_catalogs();
  for (const auto& [setting, catalog] :
       {std::pair{"model.family", c.families}, std::pair{"objective.name", c.objectives},
        std::pair{"outer.name", c.methods}, std::pair{"inner.name", c.inner},
        std::pair{"schedule.name", c.schedules}, std::pair{"data.source", c.sources},
        std::pair{"data.tokenizer", c.tokenizers}, std::pair{"codec.up", c.codecs}}) {
    for (const std::string& name : catalog->names()) {
      // One step per merge goes with every method; data_parallel refuses more.
      const Result<Recipe> recipe =
          parse_recipe("", name, {std::string(setting) + "=" + name, "sync.steps=1"}, c);
      ASSERT_TRUE(recipe.ok()) << recipe.error().message;
      EXPECT_TRUE(parse_recipe(write_recipe(*recipe), name, {}, c).ok()) << write_recipe(*recipe);
    }
  }
}

TEST(Docs, ConfigPageIsWhatTheTreeSays) {
  EXPECT_EQ(text_of(TESSERA_SOURCE_DIR "/docs/config.md"), config_markdown(builtin_catalogs()))
      << "remake it: tessera describe --markdown > docs/config.md";
}

}  // namespace
}  // namespace tessera
