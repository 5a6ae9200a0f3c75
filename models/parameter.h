// Parameters of a model by name, and the slices of them that the active slot trains.
//
// Partial updates: the whole parameter takes part in the forward pass and carries no gradient itself; each
// owned row range is a leaf. Layers compute weight gradients for the leaves only
// (models/layers/sliced_linear.h). A parameter is one contiguous tensor whose memory the leaves share, or it
// is split: owned rows are fp32, and the rows between them bf16 and nothing else (the working copy of
// arXiv 1710.03740, without the master copy of what is not trained).
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
  at::Tensor value;  ///< requires grad; a view of Parameter::full, where that is there
};

/// Frozen rows of a split parameter, each element rounded to the nearest bf16 (ties to even; subnormal ones
/// become zero, as products would take them).
struct HalfRows {
  Rows rows;
  at::Tensor value;
};

struct Parameter {
  ParamSpec spec;
  at::Tensor full;               ///< all rows; never requires grad; undefined: the parameter is split
  std::vector<Leaf> leaves;      ///< owned ranges, ascending; empty: frozen
  std::vector<HalfRows> halves;  ///< of a split parameter: the ranges between the leaves, ascending

  bool frozen() const { return leaves.empty(); }
  bool whole() const { return leaves.size() == 1 && leaves[0].rows.count() == spec.rows(); }
  bool split() const { return !full.defined(); }
  /// Sets the values of rows (fp32, in the CPU's memory); a split parameter rounds them where they are
  /// frozen.
  void write(Rows rows, const float* values);
  void write(const float* values) { write({0, spec.rows()}, values); }  ///< all of them
  /// A tensor equal to `full` whose gradient flows to the leaves, for layers that do not know slices (biases,
  /// gains, embeddings). Exact, but saves no work; matrix products use sliced_linear instead.
  at::Tensor differentiable() const;

 private:
  friend class ParamStore;
  void own(const std::vector<Rows>& ranges);
  void divide(const std::vector<Rows>& ranges);
};

/// How a store holds rows of matrices that the active slot does not own.
enum class FrozenRows : std::uint8_t { fp32, bf16 };

/// All parameters of one model replica.
class ParamStore {
 public:
  /// Uninitialised tensors of `dtype` (float or double) on `device`; every parameter starts frozen. With
  /// FrozenRows::bf16, for float alone, on the CPU, and where why_not(Precision::bf16) is empty, matrices
  /// (is_matrix) are split.
  ParamStore(const std::vector<ParamSpec>& specs, at::ScalarType dtype = at::kFloat,
             FrozenRows frozen = FrozenRows::fp32, at::Device device = at::kCPU);
  Parameter& operator[](const std::string& name);
  const Parameter& operator[](const std::string& name) const;
  const std::vector<ParamSpec>& specs() const { return specs_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }
  std::map<std::string, Parameter>& all() { return params_; }
  const std::map<std::string, Parameter>& all() const { return params_; }
  /// Replaces the leaves: exactly `owned` is trainable afterwards. Rows of split parameters that come start
  /// from their rounded values: write() gives them the exact ones.
  void set_trainable(const RowSet& owned);
  /// Everything is trainable.
  void set_all_trainable();
  /// Drops the gradients of all leaves.
  void clear_gradients();
  /// Memory that the layers of this replica use again and again.
  const std::shared_ptr<Arena>& arena() const { return arena_; }

 private:
  std::vector<ParamSpec> specs_;
  at::ScalarType dtype_;
  at::Device device_;
  std::map<std::string, Parameter> params_;
  std::shared_ptr<Arena> arena_ = std::make_shared<Arena>();
};

}  // namespace tessera
