#include "launch/machine.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace tessera {

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

std::string machine_id() {
  std::error_code unknown;
  return host_name() + "/" + std::filesystem::read_symlink("/proc/self/ns/pid", unknown).string();
}

LogLevel log_level() {
  const char* wanted = std::getenv("TESSERA_LOG");
  return wanted != nullptr && std::string(wanted) == "debug" ? LogLevel::debug : LogLevel::info;
}

}  // namespace tessera
