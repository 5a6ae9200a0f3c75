// Metrics by catalogue: every metric is declared once (name, type, help, labels); all series exist from the start at 0.
// Recording is thread-safe and cheap; the Prometheus page is monitoring/exporter.h. Knows nobody.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace tessera {

struct MetricInfo {
  enum class Type { counter, gauge, histogram };
  std::string name;                          ///< "tessera_rounds_committed_total"
  Type type;
  std::string help;
  std::string label;                         ///< name of the one label, or ""
  std::vector<std::string> label_values;     ///< bounded set, all created at 0; further values are recorded as "other"
};

/// The catalogue: the only list of metrics. docs/metrics.md is generated from it.
namespace metric {
extern const MetricInfo rounds_committed, units, loss, eval_loss, wire_bytes, phase_seconds, step_seconds, workers_alive,
    slots_leased, stale_messages, rejected_contributions, recoveries, dropped_messages, checkpoint_seconds, checkpoint_bytes,
    checkpoint_failures, checkpoint_last_ok, last_commit, epoch, exact, build_info, uncovered_rounds;
const std::vector<const MetricInfo*>& catalogue();
}  // namespace metric

class Metrics {
 public:
  Metrics();
  void add(const MetricInfo& info, double by = 1, const std::string& label = "");
  void set(const MetricInfo& info, double value, const std::string& label = "");
  void observe(const MetricInfo& info, double value, const std::string& label = "");
  double value(const MetricInfo& info, const std::string& label = "") const;  ///< counters, gauges; a histogram's sum
  /// Prometheus text exposition format 0.0.4.
  std::string text() const;

 private:
  struct Series {
    double value = 0;                        ///< a histogram's sum
    std::vector<double> buckets;             ///< counts per bucket
    double count = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::string, std::map<std::string, Series>> series_;  // guarded by mutex_: metric name -> label value
};

}  // namespace tessera
