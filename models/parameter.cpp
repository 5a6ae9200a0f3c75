#include "models/parameter.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "base/error.h"

namespace tessera {

at::Tensor Parameter::differentiable() const {
  if (frozen()) return full;
  if (whole()) return leaves[0].value;
  std::vector<at::Tensor> pieces;
  std::int64_t done = 0;
  for (const Leaf& leaf : leaves) {
    if (leaf.rows.begin > done) pieces.push_back(full.narrow(0, done, leaf.rows.begin - done));
    // Times one: the gradient is then a tensor of the owned rows, not a view that keeps the whole one alive.
    pieces.push_back(leaf.value.mul(1));
    done = leaf.rows.end;
  }
  if (done < spec.rows()) pieces.push_back(full.narrow(0, done, spec.rows() - done));
  return at::cat(pieces);
}

ParamStore::ParamStore(const std::vector<ParamSpec>& specs, at::ScalarType dtype) : specs_(specs) {
  for (const ParamSpec& spec : specs_) {
    Parameter parameter{spec, at::empty(spec.shape, at::TensorOptions().dtype(dtype)), {}};
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
  for (auto& [name, parameter] : params_) parameter.leaves.clear();
  for (const auto& [name, ranges] : owned) {
    Parameter& parameter = (*this)[name];
    std::int64_t done = 0;
    for (const Rows& rows : ranges) {
      TESSERA_CHECK(done <= rows.begin && rows.begin < rows.end && rows.end <= parameter.spec.rows(),
                    ": rows [", rows.begin, ", ", rows.end, ") of ", name, " with ", parameter.spec.rows(),
                    " rows overlap others, are empty or lie outside");
      // detach() shares the memory and the version counter, so an update between forward and backward is
      // noticed.
      at::Tensor value = parameter.full.narrow(0, rows.begin, rows.count()).detach();
      parameter.leaves.push_back({rows, value.requires_grad_(true)});
      done = rows.end;
    }
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
