#include "optim/gradient_step.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/cost_model.h"
#include "base/error.h"

namespace tessera {
namespace {

class InnerGradientStep final : public GradientStep {
 public:
  explicit InnerGradientStep(GradientStepSettings settings) : s_(std::move(settings)) {
    // An optimizer names its state when it has stepped: let it step on one number.
    const auto optimizer = s_.make_optimizer();
    optimizer->step({{.name = "x", .value = at::zeros({1}), .gradient = at::zeros({1})}}, 0, 1);
    for (const auto& [name, tensor] : optimizer->state()) names_.push_back(name.substr(2));
  }

  std::vector<std::string> state_names() const override { return names_; }

  void apply(std::int64_t step, std::span<const Update> updates) const override {
    const auto optimizer = s_.make_optimizer();
    std::vector<Piece> pieces;
    std::map<std::string, at::Tensor> state;
    for (const Update& update : updates) {
      TESSERA_CHECK_EQ(update.state.size(), names_.size());
      TESSERA_CHECK_EQ(update.delta.size(), update.theta.size());
      std::vector<std::int64_t> shape = update.spec->shape;
      if (!shape.empty()) shape[0] = update.rows.count();
      Piece piece{.name = piece_name(update.spec->name, update.rows, update.spec->rows()),
                  .value = view(update.theta, shape),
                  .gradient = at::empty(shape),
                  .decay = update.spec->decay,
                  .lr_scale = update.cut ? s_.cut_lr_scale : 1,
                  .hidden = is_hidden_matrix(*update.spec)};
      std::ranges::transform(update.delta, piece.gradient.mutable_data_ptr<float>(),
                             [](double x) { return static_cast<float>(x); });
      for (std::size_t i = 0; i < names_.size(); ++i)
        state[piece.name + "/" + names_[i]] = view(update.state[i], shape);
      pieces.push_back(std::move(piece));
    }
    clip_gradients(pieces, s_.clip, s_.all_parameters);
    optimizer->load(state);
    const double factor = s_.schedule ? s_.schedule->factor(step - 1) : 1;
    optimizer->step(pieces, optimizer->base_lr() * factor, step);
    for (const auto& [name, moved] : optimizer->state()) state.at(name).copy_(moved);
  }

 private:
  static at::Tensor view(std::span<float> values, const std::vector<std::int64_t>& shape) {
    const at::Tensor tensor = at::from_blob(values.data(), shape, at::kFloat);
    TESSERA_CHECK_EQ(static_cast<std::size_t>(tensor.numel()), values.size());
    return tensor;
  }

  GradientStepSettings s_;
  std::vector<std::string> names_;
};

}  // namespace

std::unique_ptr<GradientStep> make_gradient_step(GradientStepSettings settings) {
  return std::make_unique<InnerGradientStep>(std::move(settings));
}

}  // namespace tessera
