// A folder of a test's own, removed when the test ends.
#pragma once
#include <filesystem>
#include <string>

#include "base/ids.h"

namespace tessera {

class ScratchFolder {
 public:
  ScratchFolder() { std::filesystem::create_directories(path_); }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("tessera-test-" + random_bits128().hex());
};

}  // namespace tessera
