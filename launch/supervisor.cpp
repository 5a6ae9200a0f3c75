#include "launch/supervisor.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace tessera {
namespace {

constexpr int restarts_allowed = 5;
const Duration budget_window = std::chrono::seconds(60);
const Duration time_to_leave = std::chrono::seconds(5);
constexpr std::uintmax_t full_disk = 1 << 20;  ///< bytes left

/// Exit codes with which a child says that starting it again would change nothing.
bool is_final(int exit_code) {
  switch (static_cast<ExitCode>(exit_code)) {
    case ExitCode::usage:
    case ExitCode::failed:
    case ExitCode::storage:
    case ExitCode::fenced:
    case ExitCode::refused_key:
    case ExitCode::refused_recipe:
      return true;
    default:
      return false;
  }
}

/// What a child said last, nearly always why it ended, and where the rest of it lies. On a full disk it could
/// not say anything.
std::string last_words(const std::string& log) {
  if (log.empty()) return "";
  std::ifstream in(log);
  std::string last;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) last = line;
  }
  std::error_code unknown;
  const std::filesystem::space_info disk = std::filesystem::space(log, unknown);
  const bool full = !unknown && disk.available < full_disk;
  return (last.empty() ? "" : "\n  " + last) +
         (full ? "\n  disk full: nothing more can be written where the run lies" : "") +
         "\n  (its log: " + log + ")";
}

}  // namespace

Supervisor::Supervisor(std::vector<ChildSpec> children, std::function<void(const std::string&)> say)
    : say_(std::move(say)) {
  for (ChildSpec& spec : children)
    children_.push_back({.spec = std::move(spec), .deaths = {}, .start_at = {}});
}

Supervisor::~Supervisor() {
  kill_all();
}

Status Supervisor::start() {
  for (Child& child : children_) TESSERA_TRY(start(child, false));
  return {};
}

Status Supervisor::start(Child& child, bool again) {
  ProcessSpec process = child.spec.process;
  if (again) {
    process.arguments.insert(process.arguments.end(), child.spec.restart_arguments.begin(),
                             child.spec.restart_arguments.end());
  }
  TESSERA_ASSIGN(child.pid, start_process(process));
  child.start_at.reset();
  return {};
}

std::optional<int> Supervisor::poll(Instant now) {
  while (auto end = reap_process()) {
    auto child =
        std::find_if(children_.begin(), children_.end(), [&](const Child& c) { return c.pid == end->pid; });
    if (child == children_.end()) continue;
    child->pid = 0;
    if (auto code = on_end(*child, *end, now)) code_ = code, leave_by_ = now + time_to_leave;
  }
  if (code_) return finish(*code_, now);
  for (Child& child : children_) {
    if (!child.start_at || *child.start_at > now) continue;
    if (Status status = start(child, true); !status.ok()) {
      say_(status.error().message);
      return finish(static_cast<int>(status.error().code), now);
    }
  }
  return std::nullopt;
}

std::optional<int> Supervisor::on_end(Child& child, const ProcessEnd& end, Instant now) {
  if (code_) return std::nullopt;  // the run is over: everybody leaves
  const bool clean = end.signal == 0 && end.exit_code == 0;
  const bool resumable = end.signal == 0 && end.exit_code == static_cast<int>(ExitCode::resumable);
  if (child.spec.decides && (clean || resumable || stops_ > 0)) {
    // Asked to stop before it could listen for that: nothing is lost.
    if (end.signal != 0) return static_cast<int>(stops_ > 0 ? ExitCode::resumable : ExitCode::failed);
    return end.exit_code;
  }
  if (clean || stops_ > 0)
    return std::nullopt;  // a worker that was told to stop; the coordinator ends the run
  if (end.signal == 0 && is_final(end.exit_code)) {
    say_(child.spec.name + " ended with " + end.describe() + "; the run stops" +
         last_words(child.spec.process.output_file));
    return end.exit_code;
  }
  child.deaths.push_back(now);
  while (!child.deaths.empty() && child.deaths.front() + budget_window < now) child.deaths.pop_front();
  if (child.deaths.size() > restarts_allowed) {
    say_(child.spec.name + " died " + std::to_string(child.deaths.size()) + " times within a minute (last: " +
         end.describe() + "); the run stops" + last_words(child.spec.process.output_file));
    return static_cast<int>(ExitCode::failed);
  }
  const Duration wait = std::chrono::milliseconds(50) * (1 << (child.deaths.size() - 1));
  child.start_at = now + wait;
  ++recoveries_;
  say_(child.spec.name + " died of " + end.describe() + "; starting it again");
  return std::nullopt;
}

std::optional<int> Supervisor::finish(int code, Instant now) {
  const bool alive =
      std::any_of(children_.begin(), children_.end(), [](const Child& child) { return child.pid > 0; });
  if (alive && now < leave_by_ && code == 0) return std::nullopt;
  kill_all();
  return code;
}

void Supervisor::stop() {
  ++stops_;
  for (Child& child : children_) {
    child.start_at.reset();
    if (child.pid > 0 && child.spec.decides) kill_process(child.pid, stops_ > 1 ? SIGKILL : SIGTERM);
  }
  if (stops_ > 1) kill_all();
  // Nobody is left whose end poll() could notice: killed just now, or dead and waiting to be started again.
  const bool decider_lives = std::any_of(children_.begin(), children_.end(), [](const Child& child) {
    return child.spec.decides && child.pid > 0;
  });
  if (!decider_lives && !code_) code_ = static_cast<int>(ExitCode::resumable);
}

void Supervisor::kill_all() {
  for (Child& child : children_) {
    if (child.pid <= 0) continue;
    kill_process(child.pid, SIGKILL);
    waitpid(child.pid, nullptr, 0);
    child.pid = 0;
  }
}

}  // namespace tessera
