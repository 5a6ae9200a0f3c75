#include "worker/replica.h"

#include <algorithm>
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

/// values = share own + (1 - share) values; exact at 0 and 1.
void mix(std::span<float> values, std::span<const float> own, double share) {
  TESSERA_CHECK_EQ(values.size(), own.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(share * static_cast<double>(own[i]) +
                                   (1 - share) * static_cast<double>(values[i]));
  }
}

}  // namespace

Replica::Replica(const Family& family, CutSettings cut, at::Device device)
    : family_(family),
      cut_(std::move(cut)),
      params_(family.specs(), at::kFloat, family.frozen_rows(), device) {}

void Replica::set_frozen(const std::function<void(ParamStore&)>& set) {
  if (params_.device().is_cpu()) return set(params_);
  ParamStore host(params_.specs());
  set(host);
  for (const auto& [name, parameter] : host.all())
    params_[name].write(parameter.full.const_data_ptr<float>());
}

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
    if (leaf.value.is_cpu()) {
      std::memcpy(leaf.value.mutable_data_ptr(), found->second.bytes().data(), leaf.value.nbytes());
    } else {
      leaf.value.detach().copy_(torch_view(found->second));
    }
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

/// A slot's values of rows that it owns; nothing before it adopted its first version.
std::optional<HostTensor> Replica::own_value(const SlotRun& run, const std::string& param, Rows rows) {
  if (active_ == &run) {
    for (const Leaf& leaf : params_[param].leaves) {
      if (leaf.rows == rows) return host_copy(leaf.value);
    }
  }
  const auto parked = run.parked.find(piece_name(param, rows, params_[param].spec.rows()));
  if (parked != run.parked.end()) return parked->second;
  const auto adopted = run.adopted.find(param);
  if (adopted == run.adopted.end()) return std::nullopt;
  return adopted->second.rows(rows).clone();
}

/// The slot's own rows of the tensors among `parameters`, as they are to be from now on, where they are not
/// just those of `parameters`.
TensorMap Replica::own_pieces(SlotRun& run, const TensorMap& parameters, const TensorMap* fast) {
  TensorMap pieces;
  if (!cut_.keeps_fast && cut_.own_share == 0) return pieces;
  for (const auto& [param, ranges] : run.owned) {
    const auto tensor = parameters.find(param);
    if (tensor == parameters.end()) continue;
    const bool keeps_fast = cut_.keeps_fast && cut_.params.count(param) > 0;
    for (const Rows& rows : ranges) {
      std::optional<HostTensor> piece;
      if (!keeps_fast || fast != nullptr)
        piece = (keeps_fast ? fast->at(param) : tensor->second).rows(rows).clone();
      if (!piece || cut_.own_share > 0) {
        const std::optional<HostTensor> own = own_value(run, param, rows);
        if (own && piece) {
          mix(piece->as<float>(), own->as<float>(), cut_.own_share);
        } else if (own) {
          piece = own;
        }
      }
      if (piece) pieces.emplace(piece_name(param, rows, tensor->second.shape.at(0)), std::move(*piece));
    }
  }
  return pieces;
}

HostTensor Replica::view(const SlotRun& run, const std::string& param) {
  HostTensor whole = run.adopted.at(param).clone();
  const auto ranges = run.owned.find(param);
  if (ranges == run.owned.end()) return whole;
  for (const Rows& rows : ranges->second) {
    const std::optional<HostTensor> own = own_value(run, param, rows);
    std::ranges::copy(own->as<float>(),
                      whole.as<float>().begin() + rows.begin * params_[param].spec.row_size());
  }
  return whole;
}

/// The slot's own rows, of which those of `parameters` replace some coordinates.
TensorMap Replica::partly_replaced(const SlotRun& run, const TensorMap& parameters, const Taken& taken) {
  TensorMap pieces;
  for (const auto& [param, ranges] : run.owned) {
    const auto tensor = parameters.find(param);
    if (tensor == parameters.end()) continue;
    const ParamSpec& spec = params_[param].spec;
    for (const Rows& rows : ranges) {
      const auto these = taken(spec, rows);
      std::optional<HostTensor> own = these ? own_value(run, param, rows) : std::nullopt;
      if (!own) continue;
      const HostTensor merged = tensor->second.rows(rows);
      for (const std::int64_t i : *these)
        own->as<float>()[static_cast<std::size_t>(i)] = merged.as<float>()[static_cast<std::size_t>(i)];
      pieces.emplace(piece_name(param, rows, spec.rows()), std::move(*own));
    }
  }
  return pieces;
}

void Replica::adopt(SlotRun& run, const TensorMap& parameters, const TensorMap* fast, const Taken& taken) {
  const TensorMap own = taken ? partly_replaced(run, parameters, taken) : own_pieces(run, parameters, fast);
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
                      .lr_scale = lr_scale,
                      .hidden = is_hidden_matrix(parameter.spec)});
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

TensorMap Replica::own_views() {
  TensorMap values;
  for_each_leaf(params_, [&](Parameter&, Leaf& leaf, const std::string& name) {
    values.emplace(name, host_view(leaf.value));
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
