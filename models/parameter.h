// Parameters of a model by name, in one contiguous tensor each, and the slices of them that the active slot
// trains.
//
// Partial updates: the whole tensor takes part in the forward pass and carries no gradient itself; each owned
// row range is a leaf that shares its memory. Layers compute weight gradients for the leaves only
// (models/layers/sliced_linear.h).
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/params.h"
#include "models/layers/arena.h"

namespace tessera {

struct Leaf {
  Rows rows;
  at::Tensor value;  ///< requires grad; a view of Parameter::full
};

struct Parameter {
  ParamSpec spec;
  at::Tensor full;           ///< all rows; never requires grad
  std::vector<Leaf> leaves;  ///< owned ranges, ascending; empty: frozen

  bool frozen() const { return leaves.empty(); }
  bool whole() const { return leaves.size() == 1 && leaves[0].rows.count() == spec.rows(); }
  /// A tensor equal to `full` whose gradient flows to the leaves, for layers that do not know slices (biases,
  /// gains, embeddings). Exact, but saves no work; matrix products use sliced_linear instead.
  at::Tensor differentiable() const;
};

/// All parameters of one model replica.
class ParamStore {
 public:
  /// Uninitialised tensors of `dtype` (float or double) on the CPU; every parameter starts frozen.
  ParamStore(const std::vector<ParamSpec>& specs, at::ScalarType dtype = at::kFloat);
  Parameter& operator[](const std::string& name);
  const Parameter& operator[](const std::string& name) const;
  const std::vector<ParamSpec>& specs() const { return specs_; }
  std::map<std::string, Parameter>& all() { return params_; }
  const std::map<std::string, Parameter>& all() const { return params_; }
  /// Replaces the leaves: exactly `owned` is trainable afterwards.
  void set_trainable(const RowSet& owned);
  /// Everything is trainable.
  void set_all_trainable();
  /// Drops the gradients of all leaves.
  void clear_gradients();
  /// Memory that the layers of this replica use again and again.
  const std::shared_ptr<Arena>& arena() const { return arena_; }

 private:
  std::vector<ParamSpec> specs_;
  std::map<std::string, Parameter> params_;
  std::shared_ptr<Arena> arena_ = std::make_shared<Arena>();
};

}  // namespace tessera
