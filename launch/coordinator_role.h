// The role of the coordinator: what a recipe makes of it, and its process.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "comm/transport/endpoint.h"
#include "launch/config/recipe.h"
#include "launch/run_directory.h"
#include "monitoring/metrics.h"

namespace tessera {

/// Where a coordinator lives: a process of its own, or beside its worker in debug mode.
struct CoordinatorSurroundings {
  Endpoint& endpoint;
  const Clock& clock;
  std::int32_t expected_workers = 1;
  bool shares_slots = true;  ///< workers keep slot states in this run directory (train, run, debug)
  int threads = 1;           ///< that merges may use; changes no bit
  bool saves_later = false;  ///< CoordinatorParts::saves_later, where durability = "process"
};

class CoordinatorRole {
 public:
  /// Opens (or recovers) the run in its directory. The recipe must outlive the role.
  static Result<std::unique_ptr<CoordinatorRole>> make(const RunDirectory& run, const Recipe& recipe,
                                                       CoordinatorSurroundings surroundings);
  virtual ~CoordinatorRole() = default;
  /// Handles what has arrived; waits for it at most until `wait_until`.
  virtual void pump(Instant wait_until) = 0;
  virtual bool done() const = 0;
  /// How it ended; done() is true.
  virtual int exit_code() const = 0;
  virtual std::string reason() const = 0;
  /// Starts nothing new, checkpoints, ends with exit code 75.
  virtual void drain(const std::string& reason) = 0;
  virtual const Metrics& metrics() const = 0;
};

}  // namespace tessera
