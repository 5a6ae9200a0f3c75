// The role of a worker: what a recipe makes of it, and its process.
#pragma once
#include <memory>
#include <string>

#include "base/error.h"
#include "comm/transport/link_throttle.h"
#include "launch/assemble.h"
#include "worker/worker.h"

namespace tessera {

/// Parts of a worker from a recipe's text (as the coordinator sent it). `data_folder` overrides data.path;
/// empty: as the recipe says.
Result<std::unique_ptr<WorkerParts>> make_worker_parts(const std::string& recipe_text,
                                                       const std::string& data_folder);

struct WorkerRoleOptions {
  std::string run_directory;  ///< where endpoints.json and slots/ lie
  std::string control, bulk;  ///< addresses, where there is no run directory in common
  std::string shared_folder;  ///< bulk data on one host; empty: as endpoints.json says
  std::string data_folder;    ///< overrides data.path
  std::string slots_folder;   ///< where slot states are kept; empty: RUN/slots
  int capacity = 1;           ///< slots it is willing to hold
  LinkOptions link;           ///< a slow link, imitated
};
/// Works until the coordinator ends it. The exit code.
int run_worker_role(const WorkerRoleOptions& options);

}  // namespace tessera
