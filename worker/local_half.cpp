// The worker's side of a method's local half: what happens to a slot's own rows around a contribution.
#include <algorithm>

#include "base/pieces.h"
#include "worker/worker.h"

namespace tessera {

TensorMap Worker::view_after(const SlotRun& run, const SlotProgress& progress) {
  TensorMap view;
  const std::vector<std::int32_t> adopts = parts_->method->due(progress.step).adopt;
  for (std::size_t f = 0; f < fragments_.size(); ++f) {
    const bool replaced = std::count(adopts.begin(), adopts.end(), static_cast<std::int32_t>(f)) > 0;
    if (replaced && parts_->method->own_share() == 0 && parts_->method->share() == 1) continue;
    for (const auto& [param, ranges] : fragments_[f]) {
      const std::int64_t all = replica_->params()[param].spec.rows();
      for (const Rows& rows : ranges)
        view.emplace(piece_name(param, rows, all), replica_->view(run, param, rows));
    }
  }
  return view;
}

/// Of a view, the slot's own rows as they were in the version that the slot adopted.
TensorMap Worker::bases_of(const SlotRun& run, const TensorMap& view) const {
  TensorMap bases;
  if (!parts_->method->takes_late() || parts_->method->payload() != Payload::delta) return bases;
  for (const auto& [name, own] : pieces_of(view, run.owned, replica_->params().specs())) {
    const PieceRows piece = rows_of_piece(name, own.shape.empty() ? 1 : own.shape[0]);
    bases.emplace(name, *find_rows(run.adopted, piece.param, piece.rows));
  }
  return bases;
}

/// Slots that train these rows of a parameter, when they work on from a version.
std::int32_t Worker::owners_of(const std::string& param, Rows rows, Version version) const {
  std::int32_t owners = 0;
  for (SlotId slot{0}; slot.value < parts_->slots; ++slot.value) {
    const RowSet owned = parts_->owned(slot, version);
    const auto ranges = owned.find(param);
    if (ranges == owned.end()) continue;
    owners += std::any_of(ranges->second.begin(), ranges->second.end(), [&](const Rows& range) {
      return range.begin <= rows.begin && rows.end <= range.end;
    });
  }
  return std::max(owners, 1);
}

void Worker::before_push(SlotRun& run, Version from, TensorMap& part) {
  const OuterMethod& method = *parts_->method;
  TensorMap values;
  for (auto& [name, brought] : part) {
    const PieceRows piece = rows_of_piece(name, brought.shape.empty() ? 1 : brought.shape[0]);
    if (replica_->params()[piece.param].spec.role != Role::weight) continue;  // buffers are no change
    HostTensor& value = values.emplace(name, brought.clone()).first->second;
    OwnRows own{.value = value.as<float>(),
                .brought = brought.as<float>(),
                .committed = find_rows(run.adopted, piece.param, piece.rows)->as<float>(),
                .state = {},
                .cut = parts_->cut.params.contains(piece.param),
                .owners = owners_of(piece.param, piece.rows, from)};
    for (const std::string& kind : method.own_state_names()) {
      const auto [kept, is_new] = run.method.try_emplace(kind + "/" + name);
      if (is_new) kept->second = HostTensor::zeros(DType::f32, brought.shape);
      own.first |= is_new;
      own.state.push_back(kept->second.as<float>());
    }
    method.push(own);
  }
  replica_->set_own_values(values);
}

Coordinates Worker::coordinates() const {
  return [this](const std::string& piece, std::int64_t version) -> std::optional<Positions> {
    const auto& known = replica_->params().all();
    const auto parameter = known.find(piece.substr(0, piece.find('[')));
    if (parameter == known.end()) return std::nullopt;
    const ParamSpec& spec = parameter->second.spec;
    return parts_->method->coordinates(version, spec, rows_of_piece(piece, spec.rows()).rows);
  };
}

void Worker::thin_out(TensorMap& part, Version from) const {
  if (parts_->method->share() == 1) return;
  for (auto& [name, tensor] : part) {
    const PieceRows piece = rows_of_piece(name, tensor.shape.empty() ? 1 : tensor.shape[0]);
    const ParamSpec& spec = replica_->params().all().at(piece.param).spec;
    const auto these = parts_->method->coordinates(from.value + 1, spec, piece.rows);
    if (these) tensor = picked(tensor, *these);
  }
}

}  // namespace tessera
