#include "launch/simulate/task_graph.h"

#include <algorithm>

#include "base/error.h"

namespace tessera {

TaskGraph::Resource TaskGraph::add_resource() {
  free_.push_back(0);
  return static_cast<Resource>(free_.size()) - 1;
}

TaskGraph::Task TaskGraph::add(Resource resource, double seconds, double latency,
                               std::span<const Task> after) {
  TESSERA_CHECK_LT(resource, static_cast<Resource>(free_.size()));
  const Task task = static_cast<Task>(done_.size());
  double begin = 0;
  for (const Task before : after) {
    TESSERA_CHECK_LT(before, task);
    begin = std::max(begin, done(before));
  }
  if (resource != nothing) {
    double& idle = free_[static_cast<std::size_t>(resource)];
    begin = std::max(begin, idle);
    idle = begin + seconds;
  }
  done_.push_back(begin + seconds + latency);
  return task;
}

}  // namespace tessera
