// What a plan costs, computed before anything runs: floating-point operations, memory and bytes per slot,
// beside DiLoCo (the same without a cut) and data parallel. Used by `tessera plan` and by the summary at the
// end of a run. The formulas of operations and of a step's memory are in base/cost_model.h.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/cost_model.h"
#include "coordinator/merge.h"

namespace tessera {

/// What the formulas need besides plan and model.
struct CostSettings {
  double tokens_per_step = 1;  ///< of one slot: batch x context
  double sequences = 1;        ///< of one step: batch
  MemoryStage objective;       ///< what the objective adds to a step's memory
  std::int64_t steps = 100;    ///< H: inner steps per round
  /// fp32 state tensors that the inner optimizer keeps of a parameter (AdamW: 2 of each).
  std::function<double(const ParamSpec&)> moments = [](const ParamSpec&) { return 2.0; };
  /// fp32 tensors of what it trains that a slot keeps beside those, for the method and for error feedback.
  double slot_states = 0;
  /// fp32 tensors that the coordinator keeps of a parameter beside itself (Nesterov: the momentum).
  std::function<double(const ParamSpec&, bool cut)> outer_states = [](const ParamSpec&, bool) { return 1.0; };
  Deltas deltas = Deltas::stored;  ///< deltas_of()
  /// Slots step, and so keep moments and a start copy of what they train; else the coordinator does.
  bool steps_locally = true;
  double bytes_up = 4, bytes_down = 4;  ///< per parameter on the wire, of large pieces
  /// The same to the byte, of a piece of so many parameters; empty: as many times the above.
  std::function<double(std::int64_t elements)> piece_bytes_up{}, piece_bytes_down{};
  /// What is merged at its own time of the round (fragment_rows()); empty: all at once.
  std::vector<RowSet> fragments{};
  bool updates = false;       ///< versions come as encoded updates of what anybody trains, not whole
  bool fetches_fast = false;  ///< slots take the owners' values of what is cut with every version
};

/// Memory of one slot that does not depend on the batch, in bytes; fp32, frozen weights as the family holds
/// them (CostModel::frozen_bytes). The anchor is what the slot's change
/// is counted from; it lies in the version that the worker received (SlotCost::received), not in tensors.
struct StaticBytes {
  double weights = 0, gradients = 0, moments = 0, anchor = 0;
  double method = 0;  ///< CostSettings::slot_states; not from the tensor allocator either
  double total() const { return weights + gradients + moments + anchor + method; }
};

/// One slot; bytes are per round (H steps).
struct SlotCost {
  std::int32_t slot = -1;  ///< -1: a slot of a method that is compared with
  double owned_parameters = 0;
  double trainable_share = 1;  ///< f = owned / trainable parameters
  StepFlops step;
  StaticBytes memory;
  double activations = 0;  ///< kept between forward and backward; 0: the family does not say
  double peak = 0;         ///< the most that the tensor allocator has handed out at once during a step
  double received = 0;     ///< the adopted version as it arrived, one per worker: on one host mapped from the
                           ///< coordinator's file and shared by all processes, else the worker's own
  double bytes_up = 0, bytes_down = 0;
  double merge_up = 0, merge_down = 0;  ///< the most of these in one merge
  double bytes() const { return bytes_up + bytes_down; }
};

/// Over all slots; bytes and operations are per round (H steps).
struct TotalCost {
  double flops = 0;
  double memory = 0;
  double bytes_up = 0, bytes_down = 0;
  double merge_up = 0, merge_down = 0;  ///< the most of these in one merge, of all slots together
  double bytes() const { return bytes_up + bytes_down; }
};

struct CostReport {
  double parameters = 0;           ///< P: trainable parameters of the model
  std::vector<SlotCost> slots;     ///< ascending
  SlotCost diloco, data_parallel;  ///< one slot each, for the same H steps
  TotalCost total, total_diloco, total_data_parallel;
  double mean_share = 1;           ///< trainable share, mean over the slots
  double mean_peak = 0;            ///< SlotCost::peak, mean over the slots
  double accumulator_bytes = 0;    ///< of the coordinator: fp64 deltas 8P, where merges store them
  double coordinator_bytes = 0;    ///< parameters 4P, the accumulator, and CostSettings::outer_states
  std::vector<std::string> notes;  ///< sentences on what looks unintended in the plan

  // Shares in [0, 1] of what a run without the cut would need.
  double flops_saved() const { return 1 - total.flops / total_diloco.flops; }
  double memory_saved() const { return 1 - total.memory / total_diloco.memory; }
  double peak_saved() const { return diloco.peak > 0 ? 1 - mean_peak / diloco.peak : 0; }
  double memory_saved_against_data_parallel() const { return 1 - total.memory / total_data_parallel.memory; }
  double bytes_saved() const { return 1 - total.bytes() / total_diloco.bytes(); }
  double bytes_saved_against_data_parallel() const { return 1 - total.bytes() / total_data_parallel.bytes(); }
};

CostReport cost_of(const Plan& plan, const std::vector<ParamSpec>& specs, const CostModel& model,
                   const CostSettings& settings);

}  // namespace tessera
