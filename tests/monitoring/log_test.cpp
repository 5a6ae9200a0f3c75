// The text log: role and level in each line, one line per event whatever the text holds.
#include "monitoring/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <thread>
#include <vector>

namespace tessera {
namespace {

class Log : public testing::Test {
 protected:
  void TearDown() override {
    open_log({"tessera", "", LogLevel::warning, true});
    std::filesystem::remove(file_);
  }
  std::vector<std::string> lines() const {
    std::ifstream in(file_);
    std::vector<std::string> all;
    for (std::string line; std::getline(in, line);) all.push_back(line);
    return all;
  }
  const std::string file_ = testing::TempDir() + "tessera_log_test_" + std::to_string(::getpid()) + ".log";
};

TEST_F(Log, LinesCarryTimeLevelAndRole) {
  open_log({"worker 2", file_, LogLevel::info, false});
  log_info("slot ", 3, " adopted version ", 7);
  log_error("lost");
  log_debug("not at this level");
  ASSERT_EQ(lines().size(), 2u);
  const std::regex line(
      R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info +\[worker 2\] slot 3 adopted version 7)");
  EXPECT_TRUE(std::regex_match(lines()[0], line)) << lines()[0];
  EXPECT_THAT(lines()[1], testing::EndsWith("error   [worker 2] lost"));
}

TEST_F(Log, TextFromOutsideCannotForgeALine) {
  open_log({"coordinator", file_, LogLevel::info, false});
  log_warning("host ", std::string("a\nb\x1b[31m {} %s \x7f"));
  ASSERT_EQ(lines().size(), 1u);
  EXPECT_THAT(lines()[0], testing::EndsWith("host a\\nb\\x1b[31m {} %s \\x7f"));
}

TEST_F(Log, ThreadsDoNotMixTheirLines) {
  open_log({"tessera", file_, LogLevel::info, false});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 250; ++i) log_info("thread ", t, " says ", std::string(80, 'x'));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto all = lines();
  ASSERT_EQ(all.size(), 1000u);
  for (const std::string& line : all) EXPECT_THAT(line, testing::EndsWith(" says " + std::string(80, 'x')));
}

TEST_F(Log, AFileThatCannotBeOpenedCostsNothingButTheFile) {
  testing::internal::CaptureStderr();
  open_log({"tessera", "/proc/none/log", LogLevel::info, true});
  log_info("still here");
  const std::string seen = testing::internal::GetCapturedStderr();
  EXPECT_THAT(seen, testing::HasSubstr("/proc/none/log"));
  EXPECT_THAT(seen, testing::HasSubstr("still here"));
}

}  // namespace
}  // namespace tessera
