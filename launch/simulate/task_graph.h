// Tasks that wait for one another and for resources: a processor, a link, a coordinator's network card. Knows
// nothing of training; simulate.cpp builds the graph.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

/// Tasks over resources, with their times as they are added; seconds. A resource serves one task at a time,
/// in the order in which they were added, whenever they become ready. That the order does not depend on the
/// times makes all times monotone in all durations: a faster link never ends in a longer run, as it may where
/// the first to come is the first to be served (Graham's anomalies).
class TaskGraph {
 public:
  using Task = std::int32_t;
  using Resource = std::int32_t;
  static constexpr Resource nothing = -1;  ///< served at once, any number of tasks at a time

  Resource add_resource();
  /// A task that holds `resource` for `seconds`; those who depend on it go on `latency` seconds after that
  /// (bits on a long wire: the sender's card is free again). It is ready when all of `after` are done.
  Task add(Resource resource, double seconds, double latency, std::span<const Task> after);

  /// When the task is done, its latency included.
  double done(Task task) const { return done_[static_cast<std::size_t>(task)]; }

 private:
  std::vector<double> free_;  ///< by resource: when it has served all so far
  std::vector<double> done_;
};

}  // namespace tessera
