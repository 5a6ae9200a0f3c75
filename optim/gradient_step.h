// An inner optimizer that the coordinator steps on merged gradients (method data_parallel): the bridge from
// spans of floats to tensors.
#pragma once
#include <functional>
#include <memory>

#include "optim/grad_clip.h"
#include "optim/inner.h"
#include "optim/outer.h"
#include "optim/schedule.h"

namespace tessera {

struct GradientStepSettings {
  std::function<std::unique_ptr<InnerOptimizer>()> make_optimizer;  ///< with empty state
  std::shared_ptr<const Schedule> schedule;                         ///< null: a constant rate
  ClipSettings clip;
  std::int64_t all_parameters = 0;  ///< trainable parameters of the whole model, for scaled clipping
  double cut_lr_scale = 1;          ///< of the rate of what is cut
};

/// Steps exactly as a slot would that owns all the updated pieces: clip, then one step at the schedule's
/// rate.
std::unique_ptr<GradientStep> make_gradient_step(GradientStepSettings settings);

}  // namespace tessera
