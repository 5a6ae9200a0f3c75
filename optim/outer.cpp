#include "optim/outer.h"

#include "base/error.h"

namespace tessera {
namespace {

/// theta -= lr delta. With lr = 1 this is plain averaging: theta - (theta - end) rounds back to end, since
/// the difference of two floats is exact in fp64 (unless one is 2^29 times the other).
class Sgd final : public OuterRule {
 public:
  std::vector<std::string> state_names() const override { return {}; }
  void apply(double lr, std::span<float> theta, std::span<const double> delta,
             std::span<const std::span<float>> state) const override {
    TESSERA_CHECK_EQ(theta.size(), delta.size());
    TESSERA_CHECK_EQ(state.size(), 0u);
    for (std::size_t i = 0; i < theta.size(); ++i) {
      theta[i] = static_cast<float>(static_cast<double>(theta[i]) - lr * delta[i]);
    }
  }
};

/// b = mu b + delta; theta -= lr (delta + mu b): torch.optim.SGD(nesterov=True) without dampening, as in
/// DiLoCo (arXiv 2311.08105). The first step is lr (1 + mu) delta, a constant delta ends at lr / (1 - mu)
/// delta.
class Nesterov final : public OuterRule {
 public:
  explicit Nesterov(double momentum) : momentum_(momentum) {}
  std::vector<std::string> state_names() const override { return {"momentum"}; }
  void apply(double lr, std::span<float> theta, std::span<const double> delta,
             std::span<const std::span<float>> state) const override {
    TESSERA_CHECK_EQ(theta.size(), delta.size());
    TESSERA_CHECK_EQ(state.size(), 1u);
    const std::span<float> momentum = state[0];
    TESSERA_CHECK_EQ(theta.size(), momentum.size());
    for (std::size_t i = 0; i < theta.size(); ++i) {
      const double b = momentum_ * static_cast<double>(momentum[i]) + delta[i];
      momentum[i] = static_cast<float>(b);
      theta[i] = static_cast<float>(static_cast<double>(theta[i]) - lr * (delta[i] + momentum_ * b));
    }
  }

 private:
  double momentum_;
};

}  // namespace

std::vector<std::string> outer_rule_names() {
  return {"nesterov", "sgd"};
}

std::unique_ptr<OuterRule> make_outer_rule(const std::string& rule, double momentum) {
  if (rule == "sgd" || (rule == "nesterov" && momentum == 0)) return std::make_unique<Sgd>();
  TESSERA_CHECK(rule == "nesterov", ": no outer rule named ", rule,
                "; known: ", join(outer_rule_names(), ", "));
  return std::make_unique<Nesterov>(momentum);
}

}  // namespace tessera
