// tessera worker: joins a coordinator by hand, or as a child of train and run.
#include <sys/stat.h>

#include <filesystem>

#include "base/text.h"
#include "launch/commands.h"
#include "launch/machine.h"
#include "launch/run_directory.h"
#include "launch/worker_role.h"
#include "monitoring/log.h"

namespace tessera {
namespace {

/// "host:4711" means the control port; bulk listens on the next one. Anything else is the path of an
/// endpoints.json or of the run directory that holds it.
Result<WorkerRoleOptions> connection(const std::string& connect) {
  namespace fs = std::filesystem;
  WorkerRoleOptions role;
  if (connect.find('/') != std::string::npos || fs::exists(connect)) {
    const fs::path path(connect);
    role.run_directory = path.filename() == "endpoints.json" ? path.parent_path().string() : path.string();
    return role;
  }
  const std::vector<std::string> parts = split(connect, ':');
  const int port = parts.size() == 2 ? std::atoi(parts[1].c_str()) : 0;
  if (port <= 0 || port >= 65535) {
    return fail(ExitCode::usage, "--connect wants host:port or the path of a run directory, not '", connect,
                "'");
  }
  role.control = "tcp://" + parts[0] + ":" + std::to_string(port);
  role.bulk = "tcp://" + parts[0] + ":" + std::to_string(port + 1);
  return role;
}

}  // namespace

int command_worker(const WorkerOptions& options) {
  Result<WorkerRoleOptions> role = connection(options.connect);
  if (!role.ok()) return report(role.error());
  role->data_folder = options.data;
  role->capacity = static_cast<int>(options.capacity);
  role->slots_folder = options.folder;
  role->link = {options.link_mbits * 1e6, from_seconds(options.link_latency / 1e3)};
  std::string own_scratch;
  if (role->slots_folder.empty() && role->run_directory.empty()) {
    char scratch[] = "/tmp/tessera-worker-XXXXXX";
    if (mkdtemp(scratch) == nullptr)
      return report(fail(ExitCode::storage, "cannot make a folder for slot states under /tmp"));
    role->slots_folder = own_scratch = scratch;
  }
  open_log({.role = "worker",
            .file = {},
            .level = options.quiet ? LogLevel::warning : log_level(),
            .to_stderr = true});
  const int code = run_worker_role(*role);
  std::error_code ignored;
  if (!own_scratch.empty())
    std::filesystem::remove_all(own_scratch, ignored);  // the next worker makes its own
  return code;
}

}  // namespace tessera
