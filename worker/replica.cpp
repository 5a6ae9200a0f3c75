#include "worker/replica.h"

#include <algorithm>
#include <cstring>

#include "base/pieces.h"
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

/// Copies what `pieces` hold of rows of a parameter to their places in `values`, which are those rows; adds
/// to `found` which these were.
void copy_rows(const TensorMap& pieces, const ParamSpec& spec, Rows rows, const HostTensor& values,
               RowSet& found) {
  for (const PieceOf& piece : pieces_within(pieces, spec.name, rows)) {
    std::ranges::copy(piece.values.as<float>(),
                      values.as<float>().begin() + (piece.rows.begin - rows.begin) * spec.row_size());
    add_rows(found, spec.name, piece.rows);
  }
}

/// Room for rows of a parameter.
HostTensor empty_rows(const ParamSpec& spec, Rows rows) {
  std::vector<std::int64_t> shape = spec.shape;
  if (!shape.empty()) shape[0] = rows.count();
  return HostTensor::empty(DType::f32, shape);
}

/// Rows of a leaf.
at::Tensor narrow(const Leaf& leaf, Rows rows) {
  if (rows == leaf.rows) return leaf.value.detach();
  return leaf.value.detach().narrow(0, rows.begin - leaf.rows.begin, rows.count());
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

void Replica::write(const TensorMap& pieces) {
  for (const auto& [name, tensor] : pieces) {
    Parameter& parameter = params_[name.substr(0, name.find('['))];
    const Rows rows = rows_of_piece(name, parameter.spec.rows()).rows;
    TESSERA_CHECK_EQ(rows.count() * parameter.spec.row_size(), tensor.elements());
    parameter.write(rows, tensor.as<float>().data());
  }
}

void Replica::overlay(const TensorMap& pieces) {
  for_each_leaf(params_, [&](Parameter& parameter, Leaf& leaf, const std::string&) {
    for (const PieceOf& piece : pieces_within(pieces, parameter.spec.name, leaf.rows)) {
      const at::Tensor to = narrow(leaf, piece.rows);
      TESSERA_CHECK_EQ(to.nbytes(), piece.values.bytes().size());
      if (to.is_cpu()) {
        std::memcpy(to.mutable_data_ptr(), piece.values.bytes().data(), to.nbytes());
      } else {
        to.copy_(torch_view(piece.values));
      }
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
      if (leaf.rows.begin <= rows.begin && rows.end <= leaf.rows.end) return host_copy(narrow(leaf, rows));
    }
  }
  const ParamSpec& spec = params_[param].spec;
  HostTensor value = empty_rows(spec, rows);
  RowSet known;
  copy_rows(run.adopted, spec, rows, value, known);
  copy_rows(run.parked, spec, rows, value, known);
  if (known != RowSet{{param, {rows}}}) return std::nullopt;
  return value;
}

/// The slot's own rows of the tensors among `parameters`, as they are to be from now on, where they are not
/// just those of `parameters`.
TensorMap Replica::own_pieces(SlotRun& run, const TensorMap& parameters, const TensorMap* fast) {
  TensorMap pieces;
  if (!cut_.keeps_fast && cut_.own_share == 0) return pieces;
  for (const auto& [param, ranges] : run.owned) {
    const bool keeps_fast = cut_.keeps_fast && cut_.params.count(param) > 0;
    const TensorMap* const goes_on_with = keeps_fast ? fast : &parameters;
    for (const Rows& range : ranges) {
      for (const PieceOf& merged : pieces_within(parameters, param, range)) {
        std::optional<HostTensor> piece;
        if (goes_on_with != nullptr) piece = find_rows(*goes_on_with, param, merged.rows)->clone();
        if (!piece || cut_.own_share > 0) {
          const std::optional<HostTensor> own = own_value(run, param, merged.rows);
          if (own && piece) {
            mix(piece->as<float>(), own->as<float>(), cut_.own_share);
          } else if (own) {
            piece = own;
          }
        }
        if (piece)
          pieces.emplace(piece_name(param, merged.rows, params_[param].spec.rows()), std::move(*piece));
      }
    }
  }
  return pieces;
}

HostTensor Replica::view(const SlotRun& run, const std::string& param, Rows rows) {
  const ParamSpec& spec = params_[param].spec;
  HostTensor view = empty_rows(spec, rows);
  TensorMap own;
  if (const auto owned = run.owned.find(param); owned != run.owned.end()) {
    for (const auto& [name, ranges] : common_rows({*owned}, {{param, {rows}}})) {
      for (const Rows& range : ranges)
        own.emplace(piece_name(name, range, spec.rows()), *own_value(run, name, range));
    }
  }
  RowSet known;
  copy_rows(run.adopted, spec, rows, view, known);
  copy_rows(own, spec, rows, view, known);
  TESSERA_CHECK(known == RowSet({{param, {rows}}}), ": a slot has not adopted all of ", param);
  return view;
}

/// The slot's own rows, of which those of `parameters` replace some coordinates.
TensorMap Replica::partly_replaced(const SlotRun& run, const TensorMap& parameters, const Taken& taken) {
  TensorMap pieces;
  for (const auto& [param, ranges] : run.owned) {
    const ParamSpec& spec = params_[param].spec;
    for (const Rows& range : ranges) {
      for (const PieceOf& merged : pieces_within(parameters, param, range)) {
        const auto these = taken(spec, merged.rows);
        std::optional<HostTensor> own = these ? own_value(run, param, merged.rows) : std::nullopt;
        if (!own) continue;
        for (const std::int64_t i : *these)
          own->as<float>()[static_cast<std::size_t>(i)] =
              merged.values.as<float>()[static_cast<std::size_t>(i)];
        pieces.emplace(piece_name(param, merged.rows, spec.rows()), std::move(*own));
      }
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
  RowSet rows;
  for (const auto& [name, tensor] : parameters) {
    const PieceRows piece = rows_of_piece(name, params_[name.substr(0, name.find('['))].spec.rows());
    add_rows(rows, piece.param, piece.rows);
  }
  run.parked = pieces_without(run.parked, rows);
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
