// `tessera describe --new KIND NAME`: a new plug-in that works, with its test, written into the source tree
// as a place to start.
#pragma once
#include <string>
#include <vector>

#include "base/error.h"

namespace tessera {

/// A kind of plug-in that can be begun from a template. In the texts, @name@ and @Name@ stand for the
/// plug-in.
struct PluginTemplate {
  std::string kind;         ///< "optimizer"
  std::string folder;       ///< "optim/inner"
  std::string test_folder;  ///< "tests/optim/torch"
  std::string build;        ///< target that has its test: "optim_torch_tests"
  std::string source, test;
};
const std::vector<PluginTemplate>& plugin_templates();

/// Writes FOLDER/NAME.cpp and TEST_FOLDER/NAME_test.cpp under `root` (empty: the tree this binary was built
/// from) and gives their paths. Refused: an unknown kind, a name that is no lower-case identifier, files that
/// exist.
Result<std::vector<std::string>> write_new_plugin(const std::string& root, const std::string& kind,
                                                  const std::string& name);

}  // namespace tessera
