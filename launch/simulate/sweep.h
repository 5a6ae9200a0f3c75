// Many simulations: every combination of what is trained, workers, latency and bandwidth, and the result as a
// table, CSV or picture.
#pragma once
#include <string>
#include <vector>

#include "launch/simulate/simulate.h"
#include "monitoring/svg_plot.h"

namespace tessera {

/// Something that is trained in some way.
struct Subject {
  std::string model, method, codec;  ///< for people
  Workload work;
  double flops_per_second = 1;
  double total_steps = 0;  ///< inner steps of the whole run; 0: unknown
};

struct Axes {
  std::vector<double> bandwidths = {1e9};  ///< of a worker's link, each way, bit/s; 0: unlimited
  std::vector<double> latencies = {0};     ///< one way, seconds
  std::vector<double> workers;             ///< empty: as many as the subject has
  std::vector<double> speeds = {1};        ///< relative to Subject::flops_per_second
};

struct SweepRow {
  std::size_t subject = 0;
  double workers = 0, latency = 0, bandwidth = 0;
  Outcome outcome;
};

/// All combinations; `cluster` says the rest (topology, coordinator's link, ...).
std::vector<SweepRow> sweep(const std::vector<Subject>& subjects, const Axes& axes, const Cluster& cluster);

/// One line per row. Rates in bit/s, times in seconds; run_seconds is empty where total_steps is unknown.
std::string sweep_csv(const std::vector<Subject>& subjects, const std::vector<SweepRow>& rows);
/// A block per model, workers and latency; a line per bandwidth; a column per method and codec.
std::string sweep_table(const std::vector<Subject>& subjects, const std::vector<SweepRow>& rows);
/// Utilisation over the first of bandwidth, workers, latency that has several values.
Plot sweep_plot(const std::vector<Subject>& subjects, const std::vector<SweepRow>& rows, const Axes& axes);

}  // namespace tessera
