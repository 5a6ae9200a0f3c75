// A unit's recipe as the program understands it: every setting resolved, and what it costs. The harness gets
// it through a function, so that it needs neither torch nor the real plug-ins.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "coordinator/cost.h"
#include "launch/config/recipe.h"
#include "launch/simulate/workload.h"

namespace tessera {

struct ResolvedUnit {
  std::map<std::string, std::string> recipe;  ///< comparable_settings()
  CostReport cost;                            ///< of one round
  CostSettings cost_settings;
  Workload workload;  ///< one worker per slot
  std::int64_t rounds = 0, slots = 0, eval_every = 0;
  std::int64_t tail_steps = 0;  ///< of a slot, after its last contribution: no merge holds them
  double share =
      1;  ///< of the slots that contribute to one merge: 1/K where each contribution makes a version

  double tokens() const;              ///< of the whole run, all slots
  double merged_tokens() const;       ///< without the tail
  double flops() const;               ///< likewise
  double static_bytes() const;        ///< of the largest slot
  double step_peak_bytes() const;     ///< likewise: static, activations and what a step needs for a while
  double trained_parameters() const;  ///< mean over slots
};

/// Base recipe with overrides "a.b=c" laid over it.
using ResolveUnit = std::function<Result<ResolvedUnit>(const std::vector<std::string>& overrides)>;

/// All settings but those that say where things lie and run, or what happens after training.
std::map<std::string, std::string> comparable_settings(const Recipe& recipe);

}  // namespace tessera
