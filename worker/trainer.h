// One inner step of a slot: batch, forward, loss, backward over the owned slices, clip, inner update. And the
// held-out loss.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "comm/collective/collective.h"
#include "data/source.h"
#include "optim/grad_clip.h"
#include "optim/inner.h"
#include "optim/objective.h"
#include "optim/schedule.h"
#include "worker/replica.h"
#include "worker/slot_run.h"

namespace tessera {

struct TrainerSettings {
  std::uint64_t seed = 0;
  std::int64_t batch = 8;  ///< samples per inner step and slot
  ClipSettings clip;
  bool steps_locally = true;            ///< false: gradients are brought to the coordinator, which steps
  std::int64_t eval_batch = 16;         ///< samples per held-out batch
  std::int64_t eval_batches = 0;        ///< held-out batches per evaluation; 0: all
  std::int64_t trained_parameters = 0;  ///< of all slots together, for scaled clipping; 0: all weights
  double uncut_flops = 0;  ///< per unit, of a slot that trains everything; 0: what the family's specs say
};

/// What a trainer works with; owned by whoever assembles the worker.
struct TrainerParts {
  Replica& replica;
  const Objective& objective;
  const Schedule& schedule;
  const DataSource& data;
  /// Ranks that step together on averaged gradients; null: the worker is one. What overflows on one of them
  /// is left out by all.
  Collective* ranks = nullptr;
};

class Trainer {
 public:
  Trainer(TrainerParts parts, TrainerSettings settings);

  /// Does the slot's next inner step on the replica (activating the slot) and adds to run.work.
  /// Where the slot has a loss scale, a step whose gradients overflow changes no parameter and no moment.
  /// Error: the loss is not finite, or gradients overflow at the least scale; names slot and step.
  Status step(SlotRun& run);
  /// Adds the loss of the parameters that the replica shows on held-out batch `index` to `sums`. False: there
  /// is no such batch, the evaluation is complete.
  bool evaluate_batch(std::uint64_t index, Evaluated& sums);
  const TrainerSettings& settings() const { return settings_; }

 private:
  /// `draws`: the key of a training step; none: evaluation.
  Objective::Value forward(const TensorMap& tensors, std::optional<std::uint64_t> draws);
  /// Whether this step counts, by the norm of its gradients; moves the slot's loss scale.
  Result<bool> counts(SlotRun& run, double norm);
  TrainerParts parts_;
  TrainerSettings settings_;
  std::int64_t trainable_parameters_;
  CostModel cost_;
};

}  // namespace tessera
