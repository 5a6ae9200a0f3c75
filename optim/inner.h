// Inner optimizers: what a slot does with a gradient. State is named tensors per piece, so it can be saved,
// hashed and moved. One file per optimizer in optim/inner/, registered under its stem.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/registry.h"

namespace tessera {

/// One trainable piece: identity is the name ("blocks.0.mlp.up[0:64]"), never a position or an address.
struct Piece {
  std::string name;
  at::Tensor value;        ///< updated in place; shape [rows, ...]
  at::Tensor gradient;     ///< same shape; undefined counts as zero
  bool decay = true;       ///< weight decay applies
  std::int64_t since = 0;  ///< steps done before the piece came to the optimizer: its own count starts there
  double lr_scale = 1;     ///< of this piece's learning rate (partial.inner_lr_scale)
  bool hidden = false;     ///< rows of a matrix between two layers (is_hidden_matrix)
};

class InnerOptimizer {
 public:
  struct Context {};
  static constexpr const char* kind = "inner optimizer";
  virtual ~InnerOptimizer() = default;
  /// One update of all pieces. `step` counts from 1, less the piece's `since` (bias correction); `lr` comes
  /// from the schedule. No
  /// autograd is recorded.
  virtual void step(const std::vector<Piece>& pieces, double lr, std::int64_t step) = 0;
  /// Named state, "piece/exp_avg"; tensors are shared, not copied. Empty before the first step.
  virtual std::map<std::string, at::Tensor> state() const = 0;
  /// Replaces the state by copies of these tensors.
  virtual void load(const std::map<std::string, at::Tensor>& state) = 0;
  /// fp32 state tensors kept per trained parameter (adam 2, momentum 1), of pieces with this `hidden`: for
  /// `plan`.
  virtual double moments_per_parameter(bool hidden) const = 0;
  /// The learning rate of the settings, before the schedule.
  virtual double base_lr() const = 0;
};

}  // namespace tessera
