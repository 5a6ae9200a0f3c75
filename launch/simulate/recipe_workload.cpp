#include "launch/simulate/recipe_workload.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/pieces.h"

namespace tessera {
namespace {

/// The layer of each parameter, in the order of the forward pass (that of the specs).
struct LayerIndex {
  std::map<std::string, std::int32_t> of_param;
  std::int32_t layers = 0;
  explicit LayerIndex(const std::vector<ParamSpec>& specs) {
    std::map<std::string, std::int32_t> of_block;
    for (const ParamSpec& spec : specs) {
      const std::string block = layer_of(spec.name);
      if (!block.empty() && of_block.emplace(block, layers).second) ++layers;
      of_param[spec.name] = block.empty() ? std::max(0, layers - 1) : of_block[block];
    }
    layers = std::max(layers, 1);
  }
};

/// Operations of every layer for a slot that owns these rows: the parts of step_flops().
std::vector<StepFlops> flops_by_layer(const std::vector<ParamSpec>& specs, const LayerIndex& index,
                                      const CostModel& model, double tokens, const RowSet& owned) {
  CostModel part = model;
  part.attention_width = model.attention_width / index.layers;
  std::vector<std::vector<ParamSpec>> of_layer(static_cast<std::size_t>(index.layers));
  for (const ParamSpec& spec : specs)
    of_layer[static_cast<std::size_t>(index.of_param.at(spec.name))].push_back(spec);
  std::vector<StepFlops> flops;
  for (const std::vector<ParamSpec>& layer : of_layer)
    flops.push_back(step_flops(layer, owned, part, tokens));
  return flops;
}

/// Bytes of every fragment, by layer, for a slot that owns these rows.
std::vector<Fragment> fragments_of(const std::vector<ParamSpec>& specs, const LayerIndex& index,
                                   const OuterMethod& method, const CostSettings& settings,
                                   const std::set<std::string>& cut, const RowSet& owned) {
  std::vector<Fragment> fragments;
  for (const RowSet& rows : fragment_rows(method, specs)) {
    const RowSet own = common_rows(owned, rows);
    std::map<std::int32_t, LayerBytes> pieces;
    for (const ParamSpec& spec : specs) {
      if (spec.role != Role::weight || !rows.contains(spec.name)) continue;
      const bool twice = settings.fetches_fast && cut.count(spec.name) > 0;
      LayerBytes& piece = pieces[index.of_param.at(spec.name)];
      piece.bytes_up += settings.bytes_up * owned_elements(own, spec);
      piece.bytes_down += settings.bytes_down * owned_elements(rows, spec) * (twice ? 2 : 1);
    }
    Fragment& fragment = fragments.emplace_back();
    for (auto& [layer, piece] : pieces) {
      piece.layer = layer;
      fragment.push_back(piece);
    }
  }
  return fragments;
}

bool same(const WorkerGroup& a, const WorkerGroup& b) {
  const auto flops = [](const StepFlops& x, const StepFlops& y) {
    return x.forward == y.forward && x.activation_backward == y.activation_backward &&
           x.weight_gradient == y.weight_gradient;
  };
  const auto piece = [](const LayerBytes& x, const LayerBytes& y) {
    return x.layer == y.layer && x.bytes_up == y.bytes_up && x.bytes_down == y.bytes_down;
  };
  return std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(), flops) &&
         std::equal(a.fragments.begin(), a.fragments.end(), b.fragments.begin(), b.fragments.end(),
                    [&](const Fragment& x, const Fragment& y) {
                      return std::equal(x.begin(), x.end(), y.begin(), y.end(), piece);
                    });
}

}  // namespace

std::vector<LayerShape> layers_of(const std::vector<ParamSpec>& specs, const CostModel& model,
                                  double tokens_per_step) {
  const LayerIndex index(specs);
  RowSet everything;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) add_rows(everything, spec.name, {0, spec.rows()});
  }
  std::vector<LayerShape> layers(static_cast<std::size_t>(index.layers));
  const std::vector<StepFlops> flops = flops_by_layer(specs, index, model, tokens_per_step, everything);
  for (std::size_t i = 0; i < layers.size(); ++i) layers[i].flops = flops[i];
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight)
      layers[static_cast<std::size_t>(index.of_param.at(spec.name))].parameters +=
          static_cast<double>(spec.elements());
  }
  return layers;
}

std::vector<Exchange> exchanges_of(const OuterMethod& method) {
  const std::int64_t period = method.steps_per_merge(), start = 4 * period, end = 9 * period + 2;
  const std::size_t fragments = method.fragments().size();
  std::vector<std::vector<std::int64_t>> pushes(fragments), adopts(fragments);
  for (std::int64_t step = 0; step < end; ++step) {
    const Due due = method.due(step);
    for (const std::int32_t f : due.push) pushes[static_cast<std::size_t>(f)].push_back(step);
    for (const std::int32_t f : due.adopt) adopts[static_cast<std::size_t>(f)].push_back(step);
  }
  std::vector<Exchange> exchanges;
  for (std::size_t f = 0; f < fragments; ++f) {
    for (std::size_t n = 0; n < std::min(pushes[f].size(), adopts[f].size()); ++n) {
      const std::int64_t push = pushes[f][n] - start;
      if (push >= 0 && push < period)
        exchanges.push_back({static_cast<std::int32_t>(f), push, adopts[f][n] - start});
    }
  }
  std::stable_sort(exchanges.begin(), exchanges.end(),
                   [](const Exchange& a, const Exchange& b) { return a.push < b.push; });
  return exchanges;
}

Workload workload_of(const Plan& plan, const std::vector<ParamSpec>& specs, const CostModel& model,
                     const OuterMethod& method, const CostSettings& settings, double workers) {
  const LayerIndex index(specs);
  const std::set<std::string> cut = plan.cut_params();
  const double in_turn = std::ceil(plan.slots / workers);  // slots of a worker
  Workload work;
  work.period = method.steps_per_merge();
  work.exchanges = exchanges_of(method);
  for (std::int32_t slot = 0; slot < plan.slots; ++slot) {
    const RowSet owned = plan.owned_by(slot);
    WorkerGroup group;
    group.layers = flops_by_layer(specs, index, model, settings.tokens_per_step * in_turn, owned);
    group.fragments = fragments_of(specs, index, method, settings, cut, owned);
    for (Fragment& fragment : group.fragments) {
      for (LayerBytes& piece : fragment) piece.bytes_up *= in_turn;
    }
    const auto known = std::find_if(work.groups.begin(), work.groups.end(),
                                    [&](const WorkerGroup& other) { return same(group, other); });
    if (known == work.groups.end())
      work.groups.push_back(std::move(group));
    else
      ++known->workers;
  }
  return with_workers(work, workers);
}

}  // namespace tessera
