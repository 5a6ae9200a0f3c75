// Adam (arXiv 1412.6980) and AdamW (arXiv 1711.05101), which differ in where weight decay enters; formulas
// and their order as in torch.optim.
#pragma once
#include "base/fields.h"
#include "optim/inner_state.h"

namespace tessera {

struct AdamSettings : Settings {
  double lr = 4e-4, eps = 1e-8, weight_decay = 0;
  std::vector<double> betas{0.9, 0.95};
  void fields(FieldVisitor& f) override;
  std::vector<std::string> problems() const override;
};

/// State per piece: "exp_avg" and "exp_avg_sq".
class Adam : public MomentOptimizer {
 public:
  /// `decoupled`: decay shrinks the weights by lr * weight_decay (AdamW) instead of being added to the
  /// gradient (L2).
  Adam(const AdamSettings& settings, bool decoupled) : s_(settings), decoupled_(decoupled) {}
  void step(const std::vector<Piece>& pieces, double lr, std::int64_t step) override;
  double moments_per_parameter(bool /*hidden*/) const override { return 2; }
  double base_lr() const override { return s_.lr; }

 private:
  AdamSettings s_;
  bool decoupled_;
};

}  // namespace tessera
