// Child processes that cannot outlive their parent: started with PDEATHSIG, watched without blocking, killed
// as a group.
#pragma once
#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace tessera {

struct ProcessSpec {
  std::vector<std::string> arguments;              ///< arguments[0] is the program
  std::map<std::string, std::string> environment;  ///< added to ours
  std::string output_file;                         ///< stdout and stderr are appended here; empty: inherited
};

/// How a child ended.
struct ProcessEnd {
  pid_t pid = 0;
  int exit_code = 0;             ///< when it exited
  int signal = 0;                ///< when it was killed; else 0
  double cpu_seconds = 0;        ///< of it and of the children that it waited for
  double peak_bytes = 0;         ///< the largest resident set of one of them
  std::string describe() const;  ///< "exit code 78" or "signal 9 (Killed)"
};

/// Starts a child that gets SIGKILL when this thread's process dies.
Result<pid_t> start_process(const ProcessSpec& spec);
/// A child that has ended since the last call, without waiting.
std::optional<ProcessEnd> reap_process();
void kill_process(pid_t pid, int signal);
/// The path of the running program.
std::string own_program();
/// The same as a person in this folder would type it.
std::string program_for_typing();

}  // namespace tessera
