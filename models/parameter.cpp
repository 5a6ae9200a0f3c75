#include "models/parameter.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>

#include "base/cost_model.h"
#include "base/error.h"
#include "base/stream_copy.h"
#include "models/layers/fast_products.h"

namespace tessera {
namespace {

/// Rows of `spec`, on the CPU.
at::Tensor empty_rows(const ParamSpec& spec, std::int64_t rows, at::ScalarType dtype) {
  return at::empty({rows, spec.row_size()}, at::TensorOptions().dtype(dtype));
}

/// What rows [0, all) have besides these ranges.
std::vector<Rows> between(const std::vector<Rows>& ranges, std::int64_t all) {
  std::vector<Rows> rest;
  std::int64_t done = 0;
  for (const Rows& rows : ranges) {
    if (rows.begin > done) rest.push_back({done, rows.begin});
    done = rows.end;
  }
  if (done < all) rest.push_back({done, all});
  return rest;
}

/// Copies the rows that two tensors have in common, in the type of the one that takes them.
void copy_common(const at::Tensor& from, Rows from_rows, const at::Tensor& to, Rows to_rows) {
  const std::int64_t begin = std::max(from_rows.begin, to_rows.begin),
                     count = std::min(from_rows.end, to_rows.end) - begin;
  if (count <= 0) return;
  to.narrow(0, begin - to_rows.begin, count).copy_(from.narrow(0, begin - from_rows.begin, count));
}

}  // namespace

at::Tensor Parameter::differentiable() const {
  if (!split() && frozen()) return full;
  if (whole()) return leaves[0].value;
  std::vector<Rows> owned;
  for (const Leaf& leaf : leaves) owned.push_back(leaf.rows);
  std::map<Rows, at::Tensor> pieces;
  // Times one: the gradient is then a tensor of the owned rows, not a view that keeps the whole one alive.
  for (const Leaf& leaf : leaves) pieces.emplace(leaf.rows, leaf.value.mul(1));
  if (split()) {
    for (const HalfRows& half : halves) pieces.emplace(half.rows, half.value.to(at::kFloat));
  } else {
    for (const Rows& rows : between(owned, spec.rows()))
      pieces.emplace(rows, full.narrow(0, rows.begin, rows.count()));
  }
  std::vector<at::Tensor> ordered;
  for (const auto& [rows, piece] : pieces) ordered.push_back(piece);
  return at::cat(ordered);
}

void Parameter::write(Rows rows, const float* values) {
  TESSERA_CHECK(0 <= rows.begin && rows.begin <= rows.end && rows.end <= spec.rows());
  const std::int64_t width = spec.row_size();
  if (!split()) {
    TESSERA_CHECK(full.scalar_type() == at::kFloat);
    const at::Tensor to = full.view({spec.rows(), width}).narrow(0, rows.begin, rows.count());
    if (!full.is_cpu()) {
      to.copy_(at::from_blob(const_cast<float*>(values), to.sizes(), full.options().device(at::kCPU)));
      return;
    }
    stream_copy(to.mutable_data_ptr(), values, to.nbytes(), to.nbytes());
    return;
  }
  // Calls put(from, elements, to) for what a part has of the rows.
  const auto put_common = [&](Rows part, const at::Tensor& tensor, const auto& put) {
    const std::int64_t begin = std::max(rows.begin, part.begin), count = std::min(rows.end, part.end) - begin;
    if (count <= 0) return;
    const auto skip = (begin - part.begin) * width * static_cast<std::int64_t>(tensor.element_size());
    put(values + (begin - rows.begin) * width, count * width,
        static_cast<char*>(tensor.mutable_data_ptr()) + skip);
  };
  for (const Leaf& leaf : leaves) {
    put_common(leaf.rows, leaf.value, [](const float* from, std::int64_t elements, void* to) {
      const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(elements);
      stream_copy(to, from, bytes, bytes);
    });
  }
  for (const HalfRows& half : halves) put_common(half.rows, half.value, round_to_bf16);
}

/// Makes exactly these ranges the leaves.
void Parameter::own(const std::vector<Rows>& ranges) {
  std::int64_t done = 0;
  for (const Rows& rows : ranges) {
    TESSERA_CHECK(done <= rows.begin && rows.begin < rows.end && rows.end <= spec.rows(), ": rows [",
                  rows.begin, ", ", rows.end, ") of ", spec.name, " with ", spec.rows(),
                  " rows overlap others, are empty or lie outside");
    done = rows.end;
  }
  if (split()) {
    divide(ranges);
    return;
  }
  leaves.clear();
  for (const Rows& rows : ranges) {
    // detach() shares the memory and the version counter, so an update between forward and backward is
    // noticed.
    leaves.push_back({rows, full.narrow(0, rows.begin, rows.count()).detach().requires_grad_(true)});
  }
}

/// own() of a split parameter: tensors whose rows stay the same stay.
void Parameter::divide(const std::vector<Rows>& ranges) {
  std::map<Rows, at::Tensor> wide, half;
  for (const Leaf& leaf : leaves) wide.emplace(leaf.rows, leaf.value.detach());
  for (const HalfRows& rows : halves) half.emplace(rows.rows, rows.value);
  const auto made = [&](const std::map<Rows, at::Tensor>& same, Rows rows, at::ScalarType dtype) {
    if (const auto found = same.find(rows); found != same.end()) return found->second;
    const at::Tensor tensor = empty_rows(spec, rows.count(), dtype);
    for (const auto* old : {&wide, &half}) {
      for (const auto& [from, values] : *old) copy_common(values, from, tensor, rows);
    }
    return tensor;
  };
  leaves.clear();
  halves.clear();
  for (const Rows& rows : ranges) leaves.push_back({rows, made(wide, rows, at::kFloat).requires_grad_(true)});
  for (const Rows& rows : between(ranges, spec.rows()))
    halves.push_back({rows, made(half, rows, at::kBFloat16)});
}

ParamStore::ParamStore(const std::vector<ParamSpec>& specs, at::ScalarType dtype, FrozenRows frozen,
                       at::Device device)
    : specs_(specs), dtype_(dtype), device_(device) {
  TESSERA_CHECK(frozen == FrozenRows::fp32 || (dtype == at::kFloat && device.is_cpu()));
  for (const ParamSpec& spec : specs_) {
    Parameter parameter{.spec = spec, .full = {}, .leaves = {}, .halves = {}};
    if (frozen == FrozenRows::bf16 && is_matrix(spec)) {
      parameter.halves.push_back({{0, spec.rows()}, empty_rows(spec, spec.rows(), at::kBFloat16)});
    } else {
      parameter.full = at::empty(spec.shape, at::TensorOptions().dtype(dtype).device(device));
    }
    TESSERA_CHECK(params_.emplace(spec.name, std::move(parameter)).second, ": two parameters named ",
                  spec.name);
  }
}

Parameter& ParamStore::operator[](const std::string& name) {
  auto found = params_.find(name);
  TESSERA_CHECK(found != params_.end(), ": no parameter named ", name);
  return found->second;
}

const Parameter& ParamStore::operator[](const std::string& name) const {
  auto found = params_.find(name);
  TESSERA_CHECK(found != params_.end(), ": no parameter named ", name);
  return found->second;
}

void ParamStore::set_trainable(const RowSet& owned) {
  for (const auto& [name, ranges] : owned) (*this)[name];  // an unknown name is a bug
  for (auto& [name, parameter] : params_) {
    const auto found = owned.find(name);
    parameter.own(found == owned.end() ? std::vector<Rows>{} : found->second);
  }
}

void ParamStore::set_all_trainable() {
  RowSet owned;
  for (const ParamSpec& spec : specs_) {
    if (spec.role == Role::weight) add_rows(owned, spec.name, {0, spec.rows()});
  }
  set_trainable(owned);
}

void ParamStore::clear_gradients() {
  for (auto& [name, parameter] : params_) {
    for (Leaf& leaf : parameter.leaves) leaf.value.mutable_grad().reset();
  }
}

}  // namespace tessera
