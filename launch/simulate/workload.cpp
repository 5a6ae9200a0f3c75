#include "launch/simulate/workload.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/text.h"
#include "launch/simulate/axis.h"

namespace tessera {

double Workload::workers() const {
  double all = 0;
  for (const WorkerGroup& group : groups) all += group.workers;
  return all;
}

Result<ModelSize> parse_model_size(const std::string& text) {
  // arXiv 2501.18512, table 4: layers and seconds per step at 60 % of the machines' peak.
  static const std::map<std::string, ModelSize> known = {
      {"1B", {"1B", 1e9, 24, 0.1}}, {"10B", {"10B", 10e9, 48, 0.8}}, {"100B", {"100B", 100e9, 108, 4.9}}};
  if (const auto found = known.find(text); found != known.end()) return found->second;
  const std::vector<std::string> parts = split(text, ':');
  if (parts.size() == 3) {
    const Result<double> parameters = parse_quantity(parts[0]), layers = parse_quantity(parts[1]),
                         seconds = parse_quantity(parts[2]);
    if (parameters && layers && seconds && *parameters > 0 && *layers >= 1 && *layers <= 10000 &&
        *layers == std::floor(*layers) && *seconds > 0)
      return ModelSize{parts[0], *parameters, static_cast<std::int32_t>(*layers), *seconds};
  }
  return fail(ExitCode::usage, "a model size is 1B, 10B, 100B or PARAMETERS:LAYERS:SECONDS_PER_STEP (as ",
              "1.3B:24:0.15), not \"", text, "\"");
}

std::vector<std::string> shape_methods() {
  return {"data_parallel", "diloco", "streaming", "eager", "partial"};
}

std::vector<Exchange> staggered(std::int32_t fragments, std::int64_t steps, std::int64_t overlap) {
  std::vector<Exchange> all;
  for (std::int32_t p = 0; p < fragments; ++p) {
    const std::int64_t push = (p + 1) * steps / fragments - 1;
    all.push_back({p, std::max<std::int64_t>(push, 0), std::max<std::int64_t>(push, 0) + 1 + overlap});
  }
  return all;
}

std::vector<LayerShape> layers_of(const ModelSize& size) {
  const double third = size.step_seconds / size.layers / 3;
  return std::vector<LayerShape>(static_cast<std::size_t>(size.layers),
                                 {{third, third, third}, size.parameters / size.layers});
}

Workload workload_of(const std::vector<LayerShape>& layers, const MethodShape& shape) {
  const std::vector<std::string> methods = shape_methods();
  TESSERA_CHECK(std::count(methods.begin(), methods.end(), shape.method) == 1);
  const double trained = shape.method == "partial" ? shape.trained : 1;
  const std::int32_t count = static_cast<std::int32_t>(layers.size());
  const std::int32_t fragments =
      shape.method == "streaming" ? std::max(1, count / shape.layers_per_fragment) : 1;

  WorkerGroup group;
  group.fragments.resize(static_cast<std::size_t>(fragments));
  for (std::int32_t i = 0; i < count; ++i) {
    const LayerShape& layer = layers[static_cast<std::size_t>(i)];
    group.layers.push_back(layer.flops);
    group.layers.back().weight_gradient *= trained;
    group.fragments[static_cast<std::size_t>(i % fragments)].push_back(
        {i, layer.parameters * trained * shape.bytes_up, layer.parameters * shape.bytes_down});
  }

  Workload work;
  work.by_layer = shape.by_layer;
  work.period = shape.method == "data_parallel" ? 1 : shape.steps;
  const std::int64_t overlap = shape.method == "streaming" ? shape.overlap
                               : shape.method == "eager"   ? shape.steps
                                                           : 0;
  work.exchanges = staggered(fragments, work.period, overlap);
  work.groups.push_back(std::move(group));
  return work;
}

Workload with_workers(const Workload& work, double workers, const std::vector<double>& speeds) {
  TESSERA_CHECK(!speeds.empty());
  const double factor = workers / work.workers() / static_cast<double>(speeds.size());
  Workload scaled = work;
  scaled.groups.clear();
  for (const WorkerGroup& group : work.groups) {
    for (const double speed : speeds) {
      scaled.groups.push_back(group);
      scaled.groups.back().workers *= factor;
      scaled.groups.back().speed *= speed;
    }
  }
  return scaled;
}

}  // namespace tessera
