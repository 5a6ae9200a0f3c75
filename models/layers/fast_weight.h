// A parameter as the backward pass of a fast layer needs it, after the Parameter itself may have been cut in
// another way: its values, the owned rows, and where in the graph their gradients go.
#pragma once
#include <torch/csrc/autograd/function.h>

#include <vector>

#include "models/layers/fast_products.h"
#include "models/parameter.h"

namespace tessera {

using torch::autograd::variable_list;

class FastWeight {
 public:
  FastWeight() = default;  ///< a parameter that the layer does not have
  /// Adds an edge per owned range to `node`.
  FastWeight(const Parameter& parameter, torch::autograd::Node& node);

  bool owned() const { return !rows_.empty(); }
  bool whole() const { return rows_.size() == 1 && rows_[0].count() == all_rows_; }
  std::int64_t owned_rows() const;
  const std::vector<Rows>& rows() const { return rows_; }
  /// The values; a change since the forward pass is a bug. Of a vector (null where the layer has none), and
  /// of a matrix.
  const float* data() const;
  const WeightMatrix& matrix() const;
  /// True if the running backward pass wants a gradient of any owned range.
  bool wanted(const torch::autograd::Node& node) const;

  /// Gradients of the owned rows of a matrix [units, width]: left^T right, where row u of left^T is unit u
  /// and `right` is packed [tokens, width]. `compact`: left holds the owned units only, one range after
  /// another.
  void add_products(const torch::autograd::Node& node, const FastProducts& products, const float* left,
                    std::int64_t left_stride, const Panels& right, bool compact, variable_list& result) const;
  /// Gradients of the owned entries of a vector from the whole one's.
  void add_slices(const torch::autograd::Node& node, const float* gradient, variable_list& result) const;

 private:
  std::uint64_t version_now() const;

  std::vector<at::Tensor> held_;  ///< what the values lie in
  WeightMatrix matrix_;
  std::uint64_t version_ = 0;
  std::int64_t all_rows_ = 0;
  std::vector<Rows> rows_;  ///< owned
  std::size_t first_edge_ = 0;
};

/// The rows of a matrix, or of a vector as a matrix of one column.
WeightMatrix matrix_of(const Parameter& parameter);
/// The values of a vector, or null where the layer does not have it.
inline const float* values(const Parameter* parameter) {
  return parameter == nullptr ? nullptr : parameter->full.const_data_ptr<float>();
}

}  // namespace tessera
