// A recipe as the simulator's workload: what its plan, its method and its model's shapes say. `tessera plan`,
// `tessera simulate` and the predicted times of `tessera reproduce` come from here.
#pragma once
#include <vector>

#include "base/params.h"
#include "coordinator/cost.h"
#include "launch/simulate/workload.h"
#include "optim/outer.h"

namespace tessera {

/// Layers of a model by the names of its parameters: all with the same name up to a number ("blocks.3.") are
/// one; others belong to the layer before them, those in front to the first. Attention is spread evenly.
std::vector<LayerShape> layers_of(const std::vector<ParamSpec>& specs, const CostModel& model,
                                  double tokens_per_step);

/// When a method's fragments leave and have to be back, from its own local half: the n-th version of a
/// fragment is what came of its n-th contributions. One period of steps_per_merge() steps, long after the
/// start.
std::vector<Exchange> exchanges_of(const OuterMethod& method);

/// The slots of the plan on `workers` workers, which run their slots in turn, all of them before a step of
/// the exchange: a worker with n slots computes and uploads n times what its first one does, and receives one
/// version. Operations are those of the model, so Cluster::flops_per_second is what a worker reaches.
Workload workload_of(const Plan& plan, const std::vector<ParamSpec>& specs, const CostModel& model,
                     const OuterMethod& method, const CostSettings& settings, double workers);

}  // namespace tessera
