// What a cluster has to compute and to send, as the simulator sees it: layers with their operations,
// fragments with their bytes, and when which fragment leaves and has to be back. Made from a size and a
// method's name here, from a recipe in recipe_workload.h.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/cost_model.h"
#include "base/error.h"

namespace tessera {

/// A layer's part of a fragment, in bytes on the wire per worker.
struct LayerBytes {
  std::int32_t layer = 0;
  double bytes_up = 0, bytes_down = 0;
};
using Fragment = std::vector<LayerBytes>;

/// Workers that do the same: they are simulated as one.
struct WorkerGroup {
  double workers = 1;
  double speed = 1;  ///< relative to Cluster::flops_per_second
  std::vector<StepFlops> layers;
  std::vector<Fragment> fragments;
};

/// A fragment leaves after the inner step `push` and what came of it must be in place before the step `adopt`
/// > `push`, which may lie in a later period. DiLoCo: adopt = push + 1; tau steps of overlap: push + 1 + tau.
struct Exchange {
  std::int32_t fragment = 0;
  std::int64_t push = 0, adopt = 1;
  auto operator<=>(const Exchange&) const = default;
};

struct Workload {
  std::vector<WorkerGroup> groups;  ///< the same layers and fragments in all, with other numbers
  std::vector<Exchange> exchanges;  ///< of one period, by push
  std::int64_t period = 1;          ///< inner steps after which everything repeats
  /// A layer's share leaves when its backward pass is done and is waited for by its next forward pass, as
  /// data-parallel libraries do with buckets. Otherwise a fragment leaves as a whole after the step and the
  /// next step waits for all of it, as Tessera does.
  bool by_layer = false;

  double workers() const;
};

/// A model of which only the size is known: equal layers, 2/6 of a step's operations forward, 2/6 for the
/// gradients of activations, 2/6 for those of weights (Kaplan et al. 2020: 2 P and 4 P per token).
struct ModelSize {
  std::string name;
  double parameters = 1e9;
  std::int32_t layers = 24;
  double step_seconds = 0.1;  ///< pure compute, on a worker of speed 1
};
/// "1B", "10B", "100B" as in Streaming DiLoCo (arXiv 2501.18512, table 4), or "PARAMETERS:LAYERS:SECONDS",
/// as 1.3B:24:0.15. The sentence says what is wrong.
Result<ModelSize> parse_model_size(const std::string& text);

/// One layer that is trained whole: operations of a step and parameters.
struct LayerShape {
  StepFlops flops;
  double parameters = 0;
};
/// Operations are scaled so that a worker of `flops_per_second = 1` needs step_seconds.
std::vector<LayerShape> layers_of(const ModelSize& size);

/// How layers are trained.
struct MethodShape {
  std::string method = "diloco";  ///< one of shape_methods()
  std::int64_t steps = 100;       ///< H
  std::int32_t layers_per_fragment = 3;
  std::int64_t overlap = 0;             ///< tau, steps
  double trained = 1;                   ///< share of every layer that a worker trains and uploads (partial)
  double bytes_up = 2, bytes_down = 2;  ///< per parameter
  bool by_layer = true;
};
/// data_parallel: every step. diloco: everything every H steps. streaming: fragments of layers p, p + P, ...
/// (strided), one every H/P steps, adopted tau steps later (arXiv 2501.18512). eager: everything every H
/// steps, adopted H steps later (arXiv 2502.12996). partial: diloco whose workers train a share of each layer
/// (arXiv 2509.22418).
std::vector<std::string> shape_methods();
/// One worker; with_workers() makes a cluster of it.
Workload workload_of(const std::vector<LayerShape>& layers, const MethodShape& shape);

/// The same for so many workers. Every group is divided equally among the speeds.
Workload with_workers(const Workload& work, double workers, const std::vector<double>& speeds = {1});

/// The exchanges of `fragments` fragments in a period of H steps: one fragment every H/P steps, the last
/// after step H - 1.
std::vector<Exchange> staggered(std::int32_t fragments, std::int64_t steps, std::int64_t overlap);

}  // namespace tessera
