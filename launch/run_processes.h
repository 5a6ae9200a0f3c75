// The processes of a run: which children a machine starts, and the loop that keeps them alive and shows the
// rounds.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "launch/config/recipe.h"
#include "launch/run_directory.h"
#include "launch/supervisor.h"

namespace tessera {

ChildSpec coordinator_child(const RunDirectory& run, bool resume);
/// `number` names it in logs; `capacity` is how many slots it may hold.
ChildSpec worker_child(const RunDirectory& run, const NetSettings& net, std::int64_t number,
                       std::int64_t capacity);
/// Slots per worker so that `workers` of them hold all.
std::int64_t worker_capacity(const Recipe& recipe, std::int64_t workers);

struct SuperviseOptions {
  bool resume = false;  ///< rounds that are there already are not shown again
  bool quiet = false;
  bool owns_run = true;  ///< the coordinator is a child of this process: show its rounds, clean up after it
  std::string unit;      ///< "tokens"
  std::int64_t rounds = 0;
};
/// Runs the children until the run is over, with a line per round; Ctrl-C drains, twice stops. The exit code.
int supervise(const RunDirectory& run, std::vector<ChildSpec> children, const SuperviseOptions& options);

}  // namespace tessera
