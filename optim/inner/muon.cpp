// Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; with AdamW for the rest as in MuLoCo,
// arXiv 2505.23725), formulas and their order as in torch.optim.Muon but in the weights' own precision:
//   m = m + (1 - mu) (g - m);   d = orthogonalized(g + mu (m - g));   W = W (1 - lr decay) - lr s(W) d
// for matrices between two layers. A slice of a matrix is a matrix: its rows are made orthogonal by
// themselves.
#include <ATen/ops/lerp.h>
#include <ATen/ops/mm.h>

#include <cmath>

#include "optim/inner_adam.h"

namespace tessera {
namespace {

constexpr double kSmallest = 1e-7;  // of a norm to divide by

/// U V^T of a matrix U S V^T, roughly: rounds of X <- a X + (b A + c A^2) X with A = X X^T, after which the
/// singular values lie about 1. A matrix of zeros stays one.
at::Tensor orthogonalized(const at::Tensor& matrix, std::int64_t rounds) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = tall ? matrix.t() : matrix;
  x = x.div(x.norm().clamp_min(kSmallest));
  for (std::int64_t i = 0; i < rounds; ++i) {
    const at::Tensor gram = x.mm(x.t());
    x = x.mul(a).addmm_(gram.mul(b).addmm_(gram, gram, 1, c), x);
  }
  return tall ? x.t() : x;
}

struct MuonSettings final : AdamSettings {
  double momentum = 0.95, rest_lr = 1;
  bool nesterov = true;
  std::int64_t rounds = 5;
  std::string scale = "match_rms";

  MuonSettings() { weight_decay = 0.1; }
  void fields(FieldVisitor& f) override {
    AdamSettings::fields(f);
    f.field({"momentum", "decay of the running mean of a hidden matrix's gradients", below_one()}, momentum);
    f.field({"nesterov", "look ahead along the momentum"}, nesterov);
    f.field({"rounds", "Newton-Schulz rounds of the orthogonalization", between(1, 100)}, rounds);
    f.field({"scale",
             "of a hidden matrix's step. match_rms: 0.2 sqrt(max(rows, columns)), as large as AdamW's, so "
             "that one lr "
             "serves all; original: sqrt(max(1, rows / columns))",
             one_of({"match_rms", "original"})},
            scale);
    f.field({"rest_lr",
             "learning rate of AdamW for all that is no hidden matrix (tables, head, gains, biases), as a "
             "share of lr; "
             "betas and eps are AdamW's",
             at_least(0)},
            rest_lr);
  }
};

/// State: "exp_avg" of hidden matrices, and AdamW's of the rest.
class Muon final : public Adam {
 public:
  Muon(const MuonSettings& settings, const Context&) : Adam(settings, /*decoupled=*/true), s_(settings) {}

  void step(const std::vector<Piece>& pieces, double lr, std::int64_t step) override {
    std::vector<Piece> rest;
    for (const Piece& piece : pieces) {
      if (piece.hidden) {
        update(piece, lr * piece.lr_scale);
      } else {
        rest.push_back(piece);
      }
    }
    Adam::step(rest, lr * s_.rest_lr, step);
  }
  double moments_per_parameter(bool hidden) const override { return hidden ? 1 : 2; }

 private:
  void update(const Piece& piece, double rate) {
    TESSERA_CHECK_EQ(piece.value.dim(), 2);
    at::Tensor value = piece.value.detach();
    const at::Tensor gradient = gradient_of(piece), mean = moment(piece, "exp_avg");
    mean.lerp_(gradient, 1 - s_.momentum);
    const at::Tensor direction =
        orthogonalized(s_.nesterov ? gradient.lerp(mean, s_.momentum) : mean, s_.rounds);
    const auto rows = static_cast<double>(value.size(0)), columns = static_cast<double>(value.size(1));
    const double size = s_.scale == "original" ? std::sqrt(std::max(1.0, rows / columns))
                                               : 0.2 * std::sqrt(std::max(rows, columns));
    value.mul_(1 - rate * (piece.decay ? s_.weight_decay : 0)).sub_(direction, rate * size);
  }

  MuonSettings s_;
};

TESSERA_REGISTER(InnerOptimizer, muon, Muon, MuonSettings,
                 "orthogonalized momentum for hidden matrices (Muon), AdamW for the rest");

}  // namespace
}  // namespace tessera
