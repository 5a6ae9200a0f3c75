#include "launch/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>

namespace tessera {
namespace {

/// Between fork and exec: only calls that are safe there.
[[noreturn]] void become_child(pid_t parent, char* const* arguments, char* const* environment, int output) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before the signal was armed
  if (output >= 0) {
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
  }
  // A terminal's Ctrl-C goes to the whole foreground group; the supervisor alone decides how the children
  // drain.
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve(arguments[0], arguments, environment);
  _exit(127);
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!added.count(text.substr(0, text.find('=')))) entries.push_back(text);
  }
  for (const auto& [name, value] : added) entries.push_back(name + "=" + value);
  return entries;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

std::string ProcessEnd::describe() const {
  if (signal != 0) return "signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
  return "exit code " + std::to_string(exit_code);
}

Result<pid_t> start_process(const ProcessSpec& spec) {
  std::vector<std::string> arguments = spec.arguments;
  std::vector<std::string> environment = merged_environment(spec.environment);
  int output = -1;
  if (!spec.output_file.empty()) {
    output = open(spec.output_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (output < 0)
      return fail(ExitCode::storage, "cannot write ", spec.output_file, ": ", std::strerror(errno));
  }
  const std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) become_child(parent, argv.data(), envp.data(), output);
  if (output >= 0) close(output);
  if (pid < 0) return fail(ExitCode::failed, "cannot start ", arguments[0], ": ", std::strerror(errno));
  return pid;
}

std::optional<ProcessEnd> reap_process() {
  int status = 0;
  rusage used = {};
  const pid_t pid = wait4(-1, &status, WNOHANG, &used);
  if (pid <= 0) return std::nullopt;
  ProcessEnd end{.pid = pid};
  for (const timeval& time : {used.ru_utime, used.ru_stime})
    end.cpu_seconds += static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  end.peak_bytes = 1024.0 * static_cast<double>(used.ru_maxrss);
  if (WIFSIGNALED(status)) {
    end.signal = WTERMSIG(status);
  } else {
    end.exit_code = WEXITSTATUS(status);
  }
  return end;
}

void kill_process(pid_t pid, int signal) {
  if (pid > 0) ::kill(pid, signal);
}

std::string own_program() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  return length > 0 ? std::string(path, length) : std::string("tessera");
}

std::string program_for_typing() {
  std::error_code unknown;
  const std::filesystem::path program = own_program(), near = std::filesystem::proximate(program, unknown);
  return unknown || near.empty() || *near.begin() == ".." ? program.string() : near.string();
}

}  // namespace tessera
