#include "models/layers/fast_weight.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "base/error.h"

namespace tessera {

using torch::autograd::Node;

FastWeight::FastWeight(const Parameter& parameter, Node& node)
    : full_(parameter.full), version_(parameter.full._version()), first_edge_(node.num_outputs()) {
  for (const Leaf& leaf : parameter.leaves) {
    rows_.push_back(leaf.rows);
    node.add_next_edge(torch::autograd::impl::gradient_edge(leaf.value));
  }
}

std::int64_t FastWeight::owned_rows() const {
  std::int64_t count = 0;
  for (const Rows& rows : rows_) count += rows.count();
  return count;
}

const float* FastWeight::data() const {
  if (!full_.defined()) return nullptr;
  TESSERA_CHECK_EQ(full_._version(), version_);
  return full_.const_data_ptr<float>();
}

bool FastWeight::wanted(const Node& node) const {
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    if (node.task_should_compute_output(first_edge_ + i)) return true;
  }
  return false;
}

void FastWeight::add_products(const Node& node, const FastProducts& products, const float* left,
                              std::int64_t left_stride, const Panels& right, bool compact,
                              variable_list& result) const {
  std::int64_t column = 0;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    if (!compact) column = rows_[i].begin;
    if (node.task_should_compute_output(first_edge_ + i)) {
      const at::Tensor gradient = at::empty({rows_[i].count(), full_.size(1)}, full_.options());
      products.multiply(FlopKind::weight_gradient, {left + column, left_stride, true}, rows_[i].count(),
                        right, {gradient.mutable_data_ptr<float>(), full_.size(1)});
      result[first_edge_ + i] = gradient;
    }
    column += rows_[i].count();
  }
}

void FastWeight::add_slices(const Node& node, const float* gradient, variable_list& result) const {
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    if (!node.task_should_compute_output(first_edge_ + i)) continue;
    const at::Tensor slice = at::empty({rows_[i].count()}, full_.options());
    std::copy_n(gradient + rows_[i].begin, rows_[i].count(), slice.mutable_data_ptr<float>());
    result[first_edge_ + i] = slice;
  }
}

}  // namespace tessera
