#include "coordinator/cost.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "coordinator/merge.h"

namespace tessera {
namespace {

constexpr double kFloat = 4;  // bytes
constexpr double kDouble = 8;

double elements_of(const RowSet& rows, const std::vector<ParamSpec>& specs) {
  double elements = 0;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) elements += owned_elements(rows, spec);
  }
  return elements;
}

double moment_bytes(const RowSet& rows, const std::vector<ParamSpec>& specs, const CostSettings& settings) {
  double bytes = 0;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) bytes += kFloat * settings.moments(spec) * owned_elements(rows, spec);
  }
  return bytes;
}

double outer_state_bytes(const RowSet& cut, const std::vector<ParamSpec>& specs,
                         const CostSettings& settings) {
  double bytes = 0;
  for (const ParamSpec& spec : specs) {
    if (spec.role != Role::weight) continue;
    bytes +=
        kFloat * settings.outer_states(spec, cut.contains(spec.name)) * static_cast<double>(spec.elements());
  }
  return bytes;
}

/// On the wire: every run of rows is a piece of its own.
double wire_bytes(const RowSet& rows, const std::vector<ParamSpec>& specs, double per_parameter,
                  const std::function<double(std::int64_t)>& of_piece) {
  double bytes = 0;
  for (const ParamSpec& spec : specs) {
    const auto ranges = rows.find(spec.name);
    if (ranges == rows.end() || spec.role != Role::weight) continue;
    for (const Rows& range : ranges->second) {
      const std::int64_t elements = range.count() * spec.row_size();
      bytes += of_piece ? of_piece(elements) : per_parameter * static_cast<double>(elements);
    }
  }
  return bytes;
}

/// What a slot that owns these rows sends and receives in one merge.
struct MergeBytes {
  double up = 0, down = 0;
};
MergeBytes bytes_of_merge(const RowSet& fragment, const RowSet& owned, const RowSet& published, double cut,
                          const std::vector<ParamSpec>& specs, const CostSettings& settings) {
  return {
      wire_bytes(common_rows(owned, fragment), specs, settings.bytes_up, settings.piece_bytes_up),
      wire_bytes(common_rows(published, fragment), specs, settings.bytes_down, settings.piece_bytes_down) +
          (settings.fetches_fast ? kFloat * cut : 0)};  // fast values are never encoded
}

/// Activations, passing buffers and gradients of a step, on top of the weights and moments that are there.
void add_step_memory(SlotCost& cost, const RowSet& rows, const CostModel& model,
                     const CostSettings& settings) {
  if (!model.stages) return;  // the family does not say what it keeps
  std::vector<MemoryStage> stages = model.stages(rows, settings.sequences);
  stages.push_back(settings.objective);
  const StepMemory step = step_memory(stages);
  cost.activations = step.activations;
  cost.peak = cost.memory.weights + cost.memory.moments + std::max(step.peak, cost.memory.gradients);
}

/// Whatever a worker holds of the model, trained or not.
double stored_elements(const std::vector<ParamSpec>& specs) {
  double elements = 0;
  for (const ParamSpec& spec : specs) elements += static_cast<double>(spec.elements());
  return elements;
}

/// What a worker holds of the model while a slot that owns these rows is at work.
double weight_bytes(const RowSet& rows, const std::vector<ParamSpec>& specs, const CostModel& model) {
  double bytes = 0;
  for (const ParamSpec& spec : specs) {
    const double owned = owned_elements(rows, spec);
    const double frozen = is_matrix(spec) ? model.frozen_bytes : kFloat;
    bytes += kFloat * owned + frozen * (static_cast<double>(spec.elements()) - owned);
  }
  return bytes;
}

SlotCost slot_cost(const RowSet& rows, const std::vector<MergeBytes>& merges,
                   const std::vector<ParamSpec>& specs, double parameters, const CostModel& model,
                   const CostSettings& settings) {
  SlotCost cost;
  const double owned = elements_of(rows, specs);
  cost.owned_parameters = owned;
  cost.trainable_share = owned / parameters;
  cost.step = step_flops(specs, rows, model, settings.tokens_per_step);
  cost.memory.weights = weight_bytes(rows, specs, model);
  cost.memory.gradients = kFloat * owned;
  cost.memory.moments = settings.steps_locally ? moment_bytes(rows, specs, settings) : 0;
  cost.memory.anchor = settings.steps_locally ? kFloat * owned : 0;
  cost.memory.method = kFloat * settings.slot_states * owned;
  cost.received = kFloat * parameters;
  for (const MergeBytes& merge : merges) {
    cost.bytes_up += merge.up;
    cost.bytes_down += merge.down;
    cost.merge_up = std::max(cost.merge_up, merge.up);
    cost.merge_down = std::max(cost.merge_down, merge.down);
  }
  add_step_memory(cost, rows, model, settings);
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

}  // namespace

CostReport cost_of(const Plan& plan, const std::vector<ParamSpec>& specs, const CostModel& model,
                   const CostSettings& settings) {
  CostReport report;
  RowSet everything;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) add_rows(everything, spec.name, {0, spec.rows()});
  }
  report.parameters = elements_of(everything, specs);
  const MergeBytes all = bytes_of_merge(everything, everything, everything, 0, specs, settings);
  CostSettings local = settings;
  local.steps_locally = true;
  report.diloco = slot_cost(everything, {all}, specs, report.parameters, model, local);
  RowSet published = everything;
  if (settings.updates) {  // whose turn comes later is not in an update
    published.clear();
    for (std::int32_t slot = 0; slot < plan.slots; ++slot) add_rows(published, plan.owned_by(slot));
  }

  // Data parallel exchanges a gradient and new parameters in every one of the H steps, and needs no start
  // copy.
  report.data_parallel = report.diloco;
  report.data_parallel.memory.anchor = 0;
  report.data_parallel.bytes_up *= static_cast<double>(settings.steps);
  report.data_parallel.bytes_down *= static_cast<double>(settings.steps);

  RowSet cut;  // parameters that are divided
  for (const std::string& name : plan.cut_params()) cut[name] = everything.at(name);
  const std::vector<RowSet> fragments =
      settings.fragments.empty() ? std::vector<RowSet>{everything} : settings.fragments;
  std::vector<MergeBytes> totals(fragments.size());
  double shares = 0, peaks = 0;
  for (std::int32_t slot = 0; slot < plan.slots; ++slot) {
    const RowSet owned = plan.owned_by(slot);
    std::vector<MergeBytes> merges;
    for (std::size_t f = 0; f < fragments.size(); ++f) {
      const double of_cut = elements_of(common_rows(cut, fragments[f]), specs);
      merges.push_back(bytes_of_merge(fragments[f], owned, published, of_cut, specs, settings));
      totals[f].up += merges[f].up;
      totals[f].down += merges[f].down;
    }
    report.slots.push_back(slot_cost(owned, merges, specs, report.parameters, model, settings));
    report.slots.back().slot = slot;
    shares += report.slots.back().trainable_share;
    peaks += report.slots.back().peak;
    add(report.total, report.slots.back(), settings);
    add(report.total_diloco, report.diloco, settings);
    add(report.total_data_parallel, report.data_parallel, settings);
  }
  for (const MergeBytes& merge : totals) {
    report.total.merge_up = std::max(report.total.merge_up, merge.up);
    report.total.merge_down = std::max(report.total.merge_down, merge.down);
  }
  for (TotalCost* uncut : {&report.total_diloco, &report.total_data_parallel}) {
    uncut->merge_up = plan.slots * all.up;
    uncut->merge_down = plan.slots * all.down;
  }
  report.mean_share = shares / plan.slots;
  report.mean_peak = peaks / plan.slots;
  // What nobody trains is kept, but never merged.
  report.accumulator_bytes = are_stored(settings.deltas, shares) ? kDouble * report.parameters : 0;
  report.coordinator_bytes =
      report.accumulator_bytes + kFloat * stored_elements(specs) + outer_state_bytes(cut, specs, settings);
  report.notes = plan.notes;
  note_uneven_owners(plan, report);
  return report;
}

}  // namespace tessera
