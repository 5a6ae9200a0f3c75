#include "launch/simulate/simulate.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "launch/simulate/task_graph.h"

namespace tessera {
namespace {

using Task = TaskGraph::Task;

constexpr std::int64_t warm_up = 4, measured = 4;  // periods

/// Work per worker of a group, of which one stands for all.
class Processor {
 public:
  Processor(TaskGraph& graph, double flops_per_second) : graph_(graph), rate_(flops_per_second) {
    self_ = graph.add_resource();
  }
  void compute(double flops) { pending_ += flops / rate_; }
  /// What is computed from now on has to wait for a task.
  void wait_for(Task task) {
    if (pending_ > 0) flush();
    after_.push_back(task);
  }
  /// The task that is done when all computed so far is.
  Task flush() {
    if (pending_ > 0 || after_.size() != 1) {
      const Task task = graph_.add(self_, pending_, 0, after_);
      after_.assign(1, task);
      pending_ = 0;
    }
    return after_.front();
  }

 private:
  TaskGraph& graph_;
  double rate_;
  TaskGraph::Resource self_;
  double pending_ = 0;
  std::vector<Task> after_;
};

double seconds_of(double bytes, double bits_per_second) {
  return bits_per_second > 0 ? bytes * 8 / bits_per_second : 0;
}

/// The slower of two rates, where 0 is unlimited.
double slower(double a, double b) {
  return a > 0 && b > 0 ? std::min(a, b) : std::max(a, b);
}

class Builder {
 public:
  Builder(const Workload& work, const Cluster& cluster) : work_(work), cluster_(cluster) {
    server_in_ = graph_.add_resource();
    server_out_ = graph_.add_resource();
    merger_ = graph_.add_resource();
    ring_ = graph_.add_resource();
    for (const WorkerGroup& group : work.groups) {
      processors_.emplace_back(graph_, cluster.flops_per_second * group.speed);
      step_flops_.push_back(0);
      for (const StepFlops& layer : group.layers) step_flops_.back() += layer.total();
      up_.push_back(graph_.add_resource());
      down_.push_back(cluster.full_duplex ? graph_.add_resource() : up_.back());
    }
  }

  /// Seconds of a period in the steady state.
  double play() {
    std::vector<Task> ends;  // of the periods, for the first group
    for (std::int64_t period = 0; period < warm_up + measured; ++period) {
      for (std::int64_t step = 0; step < work_.period; ++step) add_step(period, step);
      ends.push_back(processors_.front().flush());
    }
    return (graph_.done(ends.back()) - graph_.done(ends[warm_up - 1])) / measured;
  }

 private:
  struct Arrival {
    std::int32_t layer;  ///< whose forward pass waits for it
    Task task;
  };

  void add_step(std::int64_t period, std::int64_t step) {
    std::vector<const Exchange*> leaving;
    for (const Exchange& exchange : work_.exchanges) {
      TESSERA_CHECK_LT(exchange.push, exchange.adopt);
      if (exchange.push == step) leaving.push_back(&exchange);
    }
    const std::int64_t now = period * work_.period + step;
    auto due = arrivals_.extract(now);
    // Per leaving fragment, the tasks after which its pieces may leave: group after group, late layers first.
    std::vector<std::vector<Task>> ready(leaving.size());
    for (std::size_t g = 0; !due.empty() && g < processors_.size(); ++g)
      std::stable_sort(due.mapped()[g].begin(), due.mapped()[g].end(),
                       [](const Arrival& a, const Arrival& b) { return a.layer < b.layer; });
    for (std::size_t g = 0; g < processors_.size(); ++g)
      compute_step(g, leaving, due.empty() ? nullptr : &due.mapped()[g], ready);
    for (std::size_t i = 0; i < leaving.size(); ++i)
      send(*leaving[i], period * work_.period + leaving[i]->adopt, ready[i]);
  }

  void compute_step(std::size_t g, const std::vector<const Exchange*>& leaving,
                    const std::vector<Arrival>* due, std::vector<std::vector<Task>>& ready) {
    Processor& processor = processors_[g];
    const WorkerGroup& group = work_.groups[g];
    if (leaving.empty() && due == nullptr) return processor.compute(step_flops_[g]);
    std::size_t arrived = 0;
    for (std::size_t layer = 0; layer < group.layers.size(); ++layer) {
      for (; due != nullptr && arrived < due->size(); ++arrived) {
        if ((*due)[arrived].layer > static_cast<std::int32_t>(layer)) break;
        processor.wait_for((*due)[arrived].task);
      }
      processor.compute(group.layers[layer].forward);
    }
    std::vector<std::size_t> left(leaving.size());  // pieces that have not left yet
    for (std::size_t i = 0; i < leaving.size(); ++i) left[i] = fragment_of(g, *leaving[i]).size();
    for (std::size_t layer = group.layers.size(); layer-- > 0;) {
      processor.compute(group.layers[layer].activation_backward + group.layers[layer].weight_gradient);
      for (std::size_t i = 0; work_.by_layer && i < leaving.size(); ++i) {
        const Fragment& fragment = fragment_of(g, *leaving[i]);
        for (; left[i] > 0 && fragment[left[i] - 1].layer == static_cast<std::int32_t>(layer); --left[i])
          ready[i].push_back(processor.flush());
      }
    }
    for (std::size_t i = 0; !work_.by_layer && i < leaving.size(); ++i) ready[i].push_back(processor.flush());
  }

  /// From the backward pass to the forward pass that needs it. Pieces of late layers come first, as their
  /// backward passes do; `ready` has their tasks in that order, those of the first group, then of the second.
  void send(const Exchange& exchange, std::int64_t adopt, const std::vector<Task>& ready) {
    const std::size_t groups = work_.groups.size(), pieces = ready.size() / groups;
    std::vector<std::vector<Arrival>>& arrivals = arrivals_[adopt];
    arrivals.resize(groups);
    struct Sent {
      std::vector<LayerBytes> parts;  // of the groups
      Task merged;
    };
    std::vector<Sent> sent;
    for (std::size_t i = 0; i < pieces; ++i) {
      Sent piece{{}, 0};
      std::vector<Task> after;
      for (std::size_t g = 0; g < groups; ++g) {
        const Fragment& fragment = fragment_of(g, exchange);
        piece.parts.push_back(work_.by_layer ? fragment[pieces - 1 - i] : whole(fragment));
        after.push_back(ready[g * pieces + i]);
      }
      piece.merged =
          cluster_.topology == Topology::ring ? ring(piece.parts, after) : upload(piece.parts, after);
      sent.push_back(std::move(piece));
    }
    // After all uploads: a half-duplex link would otherwise wait for the first merge before the second
    // upload.
    for (const Sent& piece : sent) {
      for (std::size_t g = 0; g < groups; ++g) {
        const Task here =
            cluster_.topology == Topology::ring ? piece.merged : download(g, piece.parts[g], piece.merged);
        arrivals[g].push_back({piece.parts[g].layer, here});
      }
    }
  }

  /// Reduce-scatter and all-gather over K workers: each sends (K-1)/K of either in K-1 messages.
  Task ring(const std::vector<LayerBytes>& parts, const std::vector<Task>& ready) {
    const double workers = work_.workers();
    double bytes = 0;
    for (const LayerBytes& part : parts) bytes = std::max(bytes, part.bytes_up + part.bytes_down);
    const double seconds =
        seconds_of(bytes * (workers - 1) / workers, slower(cluster_.up_bits, cluster_.down_bits)) *
        (cluster_.full_duplex ? 1 : 2);
    return graph_.add(ring_, seconds, 2 * (workers - 1) * cluster_.latency_seconds, ready);
  }

  /// Bytes pass the worker's link and the coordinator's at the same time; the slower one counts.
  Task upload(const std::vector<LayerBytes>& parts, const std::vector<Task>& ready) {
    const double latency = cluster_.messages_up * cluster_.latency_seconds;
    std::vector<Task> arrived;
    for (std::size_t g = 0; g < parts.size(); ++g) {
      const double bytes = parts[g].bytes_up;
      const Task after[] = {ready[g]};
      arrived.push_back(graph_.add(up_[g], seconds_of(bytes, cluster_.up_bits), latency, after));
      arrived.push_back(graph_.add(
          server_in_, seconds_of(bytes * work_.groups[g].workers, cluster_.server_bits), latency, after));
    }
    return graph_.add(merger_, cluster_.merge_seconds, 0, arrived);
  }

  Task download(std::size_t g, const LayerBytes& part, Task merged) {
    const double latency = cluster_.messages_down * cluster_.latency_seconds;
    const Task after[] = {merged};
    const Task both[] = {
        graph_.add(down_[g], seconds_of(part.bytes_down, cluster_.down_bits), latency, after),
        graph_.add(server_out_, seconds_of(part.bytes_down * work_.groups[g].workers, cluster_.server_bits),
                   latency, after)};
    return graph_.add(TaskGraph::nothing, 0, 0, both);
  }

  const Fragment& fragment_of(std::size_t g, const Exchange& exchange) const {
    return work_.groups[g].fragments[static_cast<std::size_t>(exchange.fragment)];
  }
  /// Sent and waited for in one: before the first layer.
  static LayerBytes whole(const Fragment& fragment) {
    LayerBytes sum;
    for (const LayerBytes& piece : fragment) {
      sum.bytes_up += piece.bytes_up;
      sum.bytes_down += piece.bytes_down;
    }
    return sum;
  }

  const Workload& work_;
  const Cluster& cluster_;
  TaskGraph graph_;
  TaskGraph::Resource server_in_, server_out_, merger_, ring_;
  std::vector<Processor> processors_;
  std::vector<double> step_flops_;  ///< by group
  std::vector<TaskGraph::Resource> up_, down_;
  std::map<std::int64_t, std::vector<std::vector<Arrival>>> arrivals_;  ///< by step, then by group
};

}  // namespace

Outcome simulate(const Workload& work, const Cluster& cluster) {
  TESSERA_CHECK(!work.groups.empty());
  Outcome outcome;
  outcome.seconds = Builder(work, cluster).play();
  outcome.steps = static_cast<double>(work.period);
  const double workers = work.workers();
  for (const WorkerGroup& group : work.groups) {
    const double share = group.workers / workers;
    double flops = 0;
    for (const StepFlops& layer : group.layers) flops += layer.total();
    outcome.compute_seconds += share * outcome.steps * flops / (cluster.flops_per_second * group.speed);
    for (const Exchange& exchange : work.exchanges) {
      for (const LayerBytes& piece : group.fragments[static_cast<std::size_t>(exchange.fragment)]) {
        outcome.bytes_up += share * piece.bytes_up;
        outcome.bytes_down += share * piece.bytes_down;
      }
    }
  }
  return outcome;
}

}  // namespace tessera
