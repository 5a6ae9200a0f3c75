// Commands as tests call them: options in, exit code and text out.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "launch/cli.h"

namespace tessera::testing_launch {

struct Outcome {
  int code = 0;
  std::string out, err;
};

/// Runs `tessera ARGUMENTS...` in this process.
inline Outcome tessera(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "tessera");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.code = run_cli(static_cast<int>(arguments.size()), argv.data());
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

}  // namespace tessera::testing_launch
