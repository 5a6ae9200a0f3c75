// Metrics by catalogue: every metric is declared once (name, type, help, labels); all series exist from the
// start at 0. Recording is thread-safe and cheap; the Prometheus page is monitoring/exporter.h. Knows nobody.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace tessera {

struct MetricInfo {
  enum class Type { counter, gauge, histogram };
  std::string name;  ///< "tessera_rounds_committed_total"
  Type type;
  std::string help;
  std::string label;  ///< name of the one label, or ""
  std::vector<std::string>
      label_values;  ///< bounded set, all created at 0; further values are recorded as "other"
};

/// The catalogue: the only list of metrics (metric_catalogue.cpp). docs/metrics.md is generated from it.
namespace metric {
extern const MetricInfo rounds_committed, units, flops, flops_saved, loss, eval_loss, wire_bytes,
    phase_seconds, merge_part_seconds, step_seconds, workers_alive, slots_leased, stale_messages,
    rejected_contributions, recoveries, dropped_messages, checkpoint_seconds, checkpoint_bytes,
    checkpoint_failures, checkpoint_last_ok, last_commit, epoch, exact, build_info, uncovered_rounds,
    uncovered_coordinates, held_slices, held_rounds, left_out, staleness, late;
const std::vector<const MetricInfo*>& catalogue();
/// Upper bounds of the buckets of every histogram, in seconds, ascending; +Inf is implied.
const std::vector<double>& bucket_bounds();
}  // namespace metric

/// One series as a scraper sees it.
struct MetricSample {
  std::string label_value;                ///< "" for a metric without label
  double value = 0;                       ///< a histogram's sum
  std::uint64_t count = 0;                ///< of a histogram
  std::vector<std::uint64_t> cumulative;  ///< of a histogram: observations <= each bound
};
struct MetricFamilySample {
  const MetricInfo* info;
  std::vector<MetricSample> series;  ///< sorted by label value
};

/// All values of one party. A metric that is not in the catalogue, or one used against its type, is a bug and
/// aborts; odd values are the world's and do not: see each function.
class Metrics {
 public:
  Metrics();
  /// Adds to a counter or gauge. A counter never falls: an amount that is negative or not finite is left out.
  void add(const MetricInfo& info, double by = 1, const std::string& label = "");
  /// Sets a gauge; raises a counter to a total that is kept elsewhere (a smaller total is left out).
  void set(const MetricInfo& info, double value, const std::string& label = "");
  /// Records one observation of a histogram, in seconds; a value that is negative or not finite is left out.
  void observe(const MetricInfo& info, double value, const std::string& label = "");
  double value(const MetricInfo& info,
               const std::string& label = "") const;  ///< counters, gauges; a histogram's sum
  /// All families in the catalogue's order, taken at one moment.
  std::vector<MetricFamilySample> samples() const;
  /// Prometheus text exposition format 0.0.4.
  std::string text() const;

 private:
  struct Series {
    double value = 0;                    ///< a histogram's sum
    std::vector<std::uint64_t> buckets;  ///< a histogram's counts per bucket, the last one above all bounds
  };
  Series& find(const MetricInfo& info, const std::string& label);
  const Series& find(const MetricInfo& info, const std::string& label) const;

  mutable std::mutex mutex_;
  std::map<std::string, std::map<std::string, Series>>
      series_;  // guarded by mutex_: metric name -> label value
};

}  // namespace tessera
