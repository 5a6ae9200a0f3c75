// What `tessera describe --new` writes must compile; that it also passes the contract of its kind is seen
// when it is built in.
#include "launch/new_plugin.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>

#include "tests/comm/scratch_folder.h"
#include "tests/launch/torch/command_fixture.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

class NewPlugin : public ::testing::TestWithParam<std::string> {
 protected:
  NewPlugin() {
    for (const PluginTemplate& each : plugin_templates())
      std::filesystem::create_directories(folder_.path() / each.folder);
  }
  ScratchFolder folder_;
};

TEST_P(NewPlugin, CompilesWithItsTest) {
  const auto written = write_new_plugin(folder_.path().string(), GetParam(), "my_first");
  ASSERT_TRUE(written.ok()) << written.error().message;
  ASSERT_EQ(written->size(), 2u);
  for (const std::string& file : *written) {
    const std::string command = std::string(TESSERA_COMPILER) +
                                " -std=c++20 -fsyntax-only -Wall -Wextra -Werror -Wno-unused-parameter -I" +
                                TESSERA_SOURCE_DIR + " -isystem " + TESSERA_TORCH_ROOT +
                                "/include -isystem " + TESSERA_TORCH_ROOT +
                                "/include/torch/csrc/api/include " + file;
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }
}

TEST_P(NewPlugin, NeverOverwrites) {
  ASSERT_TRUE(write_new_plugin(folder_.path().string(), GetParam(), "my_first").ok());
  const auto again = write_new_plugin(folder_.path().string(), GetParam(), "my_first");
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, ExitCode::usage);
  EXPECT_THAT(again.error().message, HasSubstr("exists already"));
}

INSTANTIATE_TEST_SUITE_P(OfEveryKind, NewPlugin, ::testing::Values("optimizer", "schedule", "family"),
                         [](const auto& info) { return info.param; });

TEST(NewPluginNames, AreCheckedBeforeAnythingIsWritten) {
  for (const char* name : {"", "Upper", "9lives", "a-b", "../../etc/x", "a b"}) {
    EXPECT_FALSE(write_new_plugin(TESSERA_SOURCE_DIR, "optimizer", name).ok()) << name;
  }
  EXPECT_THAT(write_new_plugin(TESSERA_SOURCE_DIR, "codecs", "x").error().message,
              HasSubstr("optimizer, schedule, family"));
  EXPECT_THAT(write_new_plugin("/nowhere", "optimizer", "x").error().message, HasSubstr("--source"));
  EXPECT_EQ(testing_launch::tessera({"describe", "--new", "optimizer", "adamw"}).code, 2)
      << "is there already";
}

}  // namespace
}  // namespace tessera
