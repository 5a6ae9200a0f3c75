// Objectives: (outputs, batch) -> a weighted sum and its denominator, kept apart so that micro-batches, ranks
// and slots add up before anybody divides. One file per objective in optim/objectives/.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "base/cost_model.h"
#include "base/registry.h"

namespace tessera {

struct Objective {
  struct Context {};
  static constexpr const char* kind = "objective";
  struct Value {
    at::Tensor sum;                      ///< scalar, differentiable
    double weight = 0;                   ///< denominator, in units (tokens)
    std::map<std::string, double> logs;  ///< further named sums
  };
  virtual ~Objective() = default;
  virtual Value operator()(const std::map<std::string, at::Tensor>& outputs,
                           const std::map<std::string, at::Tensor>& batch) const = 0;
  /// Memory of its part of a step over so many units with so many numbers of output each, for `plan`. The
  /// outputs themselves are counted here: they live until the objective's backward pass is done.
  virtual MemoryStage memory(double units, double outputs) const = 0;
};

}  // namespace tessera
