// Compute utilisation and time of a workload on a cluster: builds the graph of a few periods (compute per
// layer, transfers per fragment, merges) and plays it. docs/simulate.md has the model in formulas.
#pragma once
#include "launch/simulate/cluster.h"
#include "launch/simulate/workload.h"

namespace tessera {

/// One period in the steady state; means are over workers.
struct Outcome {
  double seconds = 0;                   ///< of a period
  double compute_seconds = 0;           ///< of it, that a worker computes
  double steps = 1;                     ///< of a period
  double bytes_up = 0, bytes_down = 0;  ///< of one worker in a period
  double compute_utilisation() const { return compute_seconds / seconds; }
  double waiting_seconds() const { return seconds - compute_seconds; }
  double step_seconds() const { return seconds / steps; }
};

/// Time and memory do not depend on the number of workers, only on the number of groups.
Outcome simulate(const Workload& work, const Cluster& cluster);

}  // namespace tessera
