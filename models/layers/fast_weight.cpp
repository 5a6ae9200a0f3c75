#include "models/layers/fast_weight.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "base/error.h"

namespace tessera {

using torch::autograd::Node;

WeightMatrix matrix_of(const Parameter& parameter) {
  WeightMatrix matrix{.runs = {}, .width = parameter.spec.row_size()};
  if (!parameter.split()) {
    matrix.runs.push_back({parameter.spec.rows(), parameter.full.const_data_ptr<float>(), nullptr});
    return matrix;
  }
  auto half = parameter.halves.begin();
  auto leaf = parameter.leaves.begin();
  while (half != parameter.halves.end() || leaf != parameter.leaves.end()) {
    const bool frozen = leaf == parameter.leaves.end() ||
                        (half != parameter.halves.end() && half->rows.begin < leaf->rows.begin);
    if (frozen) {
      matrix.runs.push_back(
          {half->rows.count(), nullptr, static_cast<const std::uint16_t*>(half->value.const_data_ptr())});
      ++half;
    } else {
      matrix.runs.push_back({leaf->rows.count(), leaf->value.const_data_ptr<float>(), nullptr});
      ++leaf;
    }
  }
  return matrix;
}

FastWeight::FastWeight(const Parameter& parameter, Node& node)
    : matrix_(matrix_of(parameter)), all_rows_(parameter.spec.rows()), first_edge_(node.num_outputs()) {
  for (const Leaf& leaf : parameter.leaves) {
    rows_.push_back(leaf.rows);
    node.add_next_edge(torch::autograd::impl::gradient_edge(leaf.value));
    if (parameter.split()) held_.push_back(leaf.value.detach());
  }
  for (const HalfRows& half : parameter.halves) held_.push_back(half.value);
  if (!parameter.split()) held_.push_back(parameter.full);
  version_ = version_now();
}

std::uint64_t FastWeight::version_now() const {
  std::uint64_t sum = 0;
  for (const at::Tensor& tensor : held_) sum += tensor._version();
  return sum;
}

std::int64_t FastWeight::owned_rows() const {
  std::int64_t count = 0;
  for (const Rows& rows : rows_) count += rows.count();
  return count;
}

const float* FastWeight::data() const {
  return held_.empty() ? nullptr : matrix().together();
}

const WeightMatrix& FastWeight::matrix() const {
  TESSERA_CHECK_EQ(version_now(), version_);
  return matrix_;
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
      const at::Tensor gradient = at::empty({rows_[i].count(), matrix_.width}, at::kFloat);
      products.multiply(FlopKind::weight_gradient, {left + column, left_stride, true}, rows_[i].count(),
                        right, {gradient.mutable_data_ptr<float>(), matrix_.width});
      result[first_edge_ + i] = gradient;
    }
    column += rows_[i].count();
  }
}

void FastWeight::add_slices(const Node& node, const float* gradient, variable_list& result) const {
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    if (!node.task_should_compute_output(first_edge_ + i)) continue;
    const at::Tensor slice = at::empty({rows_[i].count()}, at::kFloat);
    std::copy_n(gradient + rows_[i].begin, rows_[i].count(), slice.mutable_data_ptr<float>());
    result[first_edge_ + i] = slice;
  }
}

}  // namespace tessera
