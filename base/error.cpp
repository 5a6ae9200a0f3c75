#include "base/error.h"

#include <cstdio>

namespace tessera::detail {

void abort_with(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "tessera: bug at %s:%d: check failed: %s\n", file, line, what.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace tessera::detail
