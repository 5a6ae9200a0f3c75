#include "worker/replica.h"

#include <cstring>

#include "worker/torch_bridge.h"

namespace tessera {
namespace {

template <class Visit>
void for_each_leaf(ParamStore& params, Visit visit) {
  for (auto& [name, parameter] : params.all()) {
    for (Leaf& leaf : parameter.leaves)
      visit(parameter, leaf, piece_name(name, leaf.rows, parameter.spec.rows()));
  }
}

}  // namespace

Replica::Replica(const Family& family, CutSettings cut)
    : family_(family), cut_(std::move(cut)), params_(family.specs(), at::kFloat, family.frozen_rows()) {}

void Replica::write(const TensorMap& whole) {
  for (const auto& [name, tensor] : whole) {
    Parameter& parameter = params_[name];
    TESSERA_CHECK_EQ(parameter.spec.elements(), tensor.elements());
    parameter.write(tensor.as<float>().data());
  }
}

void Replica::overlay(const TensorMap& pieces) {
  for_each_leaf(params_, [&](Parameter&, Leaf& leaf, const std::string& piece) {
    auto found = pieces.find(piece);
    if (found == pieces.end()) return;
    TESSERA_CHECK_EQ(leaf.value.nbytes(), found->second.bytes().size());
    std::memcpy(leaf.value.mutable_data_ptr(), found->second.bytes().data(), leaf.value.nbytes());
  });
}

void Replica::park() {
  if (active_ == nullptr) return;
  active_->parked = own_values();
  active_ = nullptr;
}

void Replica::activate(SlotRun& run) {
  if (active_ == &run) return;
  park();
  params_.set_trainable(run.owned);
  write(run.adopted);
  overlay(run.parked);
  run.parked.clear();
  active_ = &run;
}

/// The slot's own rows of the cut tensors among `parameters`, as they are to be from now on.
TensorMap Replica::fast_pieces(SlotRun& run, const TensorMap& parameters, const TensorMap* fast) {
  TensorMap pieces;
  if (!cut_.keeps_fast) return pieces;
  for (const auto& [param, ranges] : run.owned) {
    const auto tensor = parameters.find(param);
    if (tensor == parameters.end() || !cut_.params.count(param)) continue;
    for (const Rows& rows : ranges) {
      const std::string name = piece_name(param, rows, tensor->second.shape.at(0));
      if (fast != nullptr) {
        pieces.emplace(name, fast->at(param).rows(rows).clone());
      } else if (active_ == &run) {
        for (const Leaf& leaf : params_[param].leaves) {
          if (leaf.rows == rows) pieces.emplace(name, host_copy(leaf.value));
        }
      } else if (const auto parked = run.parked.find(name); parked != run.parked.end()) {
        pieces.emplace(name, parked->second);
      }
    }
  }
  return pieces;
}

void Replica::adopt(SlotRun& run, const TensorMap& parameters, const TensorMap* fast) {
  const TensorMap own = fast_pieces(run, parameters, fast);
  for (const auto& [name, tensor] : parameters) run.adopted.insert_or_assign(name, tensor);
  if (active_ == &run) {
    write(parameters);
    overlay(own);
    return;
  }
  std::erase_if(run.parked, [&](const auto& piece) {
    return parameters.count(piece.first.substr(0, piece.first.find('['))) > 0;
  });
  for (const auto& [name, tensor] : own) run.parked.insert_or_assign(name, tensor);
}

void Replica::show(const TensorMap& parameters) {
  park();
  write(parameters);
}

void Replica::rest(SlotRun& run) {
  if (active_ == &run) park();
}

void Replica::release(const SlotRun& run) {
  if (active_ == &run) active_ = nullptr;
}

std::vector<Piece> Replica::pieces() {
  std::vector<Piece> pieces;
  for_each_leaf(params_, [&](Parameter& parameter, Leaf& leaf, const std::string& name) {
    const double lr_scale = cut_.params.count(parameter.spec.name) ? cut_.lr_scale : 1;
    pieces.push_back({.name = name,
                      .value = leaf.value.detach(),
                      .gradient = leaf.value.grad(),
                      .decay = parameter.spec.decay,
                      .lr_scale = lr_scale});
  });
  return pieces;
}

TensorMap Replica::own_values() {
  TensorMap values;
  for_each_leaf(params_, [&](Parameter&, Leaf& leaf, const std::string& name) {
    values.emplace(name, host_copy(leaf.value));
  });
  return values;
}

TensorMap Replica::own_gradients() {
  TensorMap gradients;
  for_each_leaf(params_, [&](Parameter&, Leaf& leaf, const std::string& name) {
    const at::Tensor& gradient = leaf.value.grad();
    gradients.emplace(name, gradient.defined() ? host_copy(gradient)
                                               : HostTensor::zeros(DType::f32, leaf.value.sizes().vec()));
  });
  return gradients;
}

}  // namespace tessera
