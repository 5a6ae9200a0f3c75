#include "coordinator/cost.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace tessera {
namespace {

constexpr double kFloat = 4;  // bytes
constexpr double kDouble = 8;

/// What a slot trains: all parameters it owns, the others that would have had a weight-gradient matmul, and
/// what partial.frozen takes from everybody.
struct Ownership {
  double owned = 0, frozen_in_matmuls = 0, frozen_for_all = 0;
};

Ownership ownership_of(const RowSet& rows, const std::vector<ParamSpec>& specs) {
  Ownership ownership;
  for (const ParamSpec& spec : specs) {
    if (spec.role != Role::weight && spec.role != Role::frozen) continue;
    if (spec.role == Role::frozen) ownership.frozen_for_all += static_cast<double>(spec.elements());
    double owned = 0;
    if (auto found = rows.find(spec.name); found != rows.end()) {
      for (const Rows& range : found->second) owned += static_cast<double>(range.count() * spec.row_size());
    }
    ownership.owned += owned;
    if (spec.shape.size() >= 2) ownership.frozen_in_matmuls += static_cast<double>(spec.elements()) - owned;
  }
  return ownership;
}

SlotCost slot_cost(const Ownership& ownership, double parameters, const CostModel& model,
                   const CostSettings& settings) {
  SlotCost cost;
  cost.owned_parameters = ownership.owned;
  cost.trainable_share = ownership.owned / parameters;
  const double attention = static_cast<double>(model.context) * model.attention_width;
  const double tokens = settings.tokens_per_step;
  cost.step.forward = tokens * (2 * model.matmul_params + 2 * attention);
  cost.step.activation_backward = tokens * (2 * model.matmul_params + 4 * attention);
  cost.step.weight_gradient = tokens * 2 * (model.matmul_params - ownership.frozen_in_matmuls);
  cost.memory.weights = kFloat * (parameters + ownership.frozen_for_all);
  cost.memory.gradients = kFloat * ownership.owned;
  cost.memory.moments = kFloat * settings.moments_per_parameter * ownership.owned;
  cost.memory.anchor = settings.anchor ? kFloat * ownership.owned : 0;
  cost.bytes_up = settings.bytes_up * ownership.owned;
  cost.bytes_down = settings.bytes_down * parameters;
  return cost;
}

void add(TotalCost& total, const SlotCost& slot, const CostSettings& settings) {
  total.flops += static_cast<double>(settings.steps) * slot.step.total();
  total.memory += slot.memory.total();
  total.bytes_up += slot.bytes_up;
  total.bytes_down += slot.bytes_down;
}

/// Owners per slice should be equal: where they are not, some coordinates are averaged over fewer slots than
/// others.
void note_uneven_owners(const Plan& plan, CostReport& report) {
  std::size_t fewest = plan.slots, most = 0;
  for (const Slice& slice : plan.slices) {
    if (slice.name == "shared" || slice.owners.empty()) continue;
    fewest = std::min(fewest, slice.owners.size());
    most = std::max(most, slice.owners.size());
  }
  if (most > fewest) {
    report.notes.push_back(detail::describe("Some slices have ", most, " owners and others ", fewest,
                                            ", because ", plan.slots,
                                            " slots is not a multiple of partial.slices."));
  }
}

/// `slot_bytes` over a slot's link and `all_bytes` through the coordinator's, at the same time.
double transfer_seconds(double slot_bytes, double link_bits, double all_bytes, double server_bits) {
  const double link = link_bits > 0 ? slot_bytes * 8 / link_bits : 0;
  const double server = server_bits > 0 ? all_bytes * 8 / server_bits : 0;
  return std::max(link, server);
}

}  // namespace

CostReport cost_of(const Plan& plan, const std::vector<ParamSpec>& specs, const CostModel& model,
                   const CostSettings& settings) {
  CostReport report;
  RowSet everything;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) add_rows(everything, spec.name, {0, spec.rows()});
  }
  const Ownership all = ownership_of(everything, specs);
  report.parameters = all.owned;
  report.diloco = slot_cost(all, report.parameters, model, settings);

  // Data parallel exchanges a gradient and new parameters in every one of the H steps, and needs no start
  // copy.
  report.data_parallel = report.diloco;
  report.data_parallel.memory.anchor = 0;
  report.data_parallel.bytes_up *= static_cast<double>(settings.steps);
  report.data_parallel.bytes_down *= static_cast<double>(settings.steps);

  for (std::int32_t slot = 0; slot < plan.slots; ++slot) {
    report.slots.push_back(
        slot_cost(ownership_of(plan.owned_by(slot), specs), report.parameters, model, settings));
    report.slots.back().slot = slot;
    add(report.total, report.slots.back(), settings);
    add(report.total_diloco, report.diloco, settings);
    add(report.total_data_parallel, report.data_parallel, settings);
  }
  report.coordinator_bytes = (2 * kFloat + kDouble) * report.parameters + kFloat * all.frozen_for_all;
  report.notes = plan.notes;
  note_uneven_owners(plan, report);
  return report;
}

RoundTime predict_round(const CostReport& report, const CostSettings& settings, const Cluster& cluster) {
  RoundTime time;
  double up = 0, down = 0, flops = 0;  // of the slowest slot
  for (const SlotCost& slot : report.slots) {
    flops = std::max(flops, static_cast<double>(settings.steps) * slot.step.total());
    up = std::max(up, slot.bytes_up);
    down = std::max(down, slot.bytes_down);
  }
  time.compute_seconds = flops / cluster.flops_per_second;
  time.sync_seconds =
      transfer_seconds(up, cluster.up_bits, report.total.bytes_up, cluster.server_bits) +
      transfer_seconds(down, cluster.down_bits, report.total.bytes_down, cluster.server_bits) +
      cluster.latency_seconds;
  return time;
}

RoundTime predict_data_parallel(const CostReport& report, const CostSettings& settings,
                                const Cluster& cluster) {
  const SlotCost& slot = report.data_parallel;
  const TotalCost& total = report.total_data_parallel;
  const double steps = static_cast<double>(settings.steps);
  RoundTime time;
  time.compute_seconds = steps * slot.step.total() / cluster.flops_per_second;
  time.sync_seconds =
      transfer_seconds(slot.bytes_up, cluster.up_bits, total.bytes_up, cluster.server_bits) +
      transfer_seconds(slot.bytes_down, cluster.down_bits, total.bytes_down, cluster.server_bits) +
      steps * cluster.latency_seconds;
  return time;
}

}  // namespace tessera
