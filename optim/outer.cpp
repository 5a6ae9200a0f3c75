#include "optim/outer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "base/pieces.h"
#include "optim/rule_kernels/kernels.h"

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
    rule_kernels().sgd(lr, theta.data(), delta.data(), theta.size());
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
    rule_kernels().nesterov(lr, momentum_, theta.data(), delta.data(), momentum.data(), theta.size());
  }

 private:
  double momentum_;
};

class Adam final : public OuterRule {
 public:
  Adam(double momentum, OuterAdam adam) : beta1_(momentum), adam_(adam) {}
  std::vector<std::string> state_names() const override { return {"momentum", "variance"}; }
  void apply(double lr, std::span<float> theta, std::span<const double> delta,
             std::span<const std::span<float>> state) const override {
    TESSERA_CHECK_EQ(theta.size(), delta.size());
    TESSERA_CHECK_EQ(state.size(), 2u);
    TESSERA_CHECK(theta.size() == state[0].size() && theta.size() == state[1].size());
    rule_kernels().adam(lr, {beta1_, adam_.beta2, adam_.epsilon}, theta.data(), delta.data(), state[0].data(),
                        state[1].data(), theta.size());
  }

 private:
  double beta1_;
  OuterAdam adam_;
};

constexpr std::size_t stored_block = 65536;  // elements

std::size_t stored_blocks(std::size_t elements) {
  return (elements + stored_block - 1) / stored_block;
}

void apply_block(const Update& update, const RuleStep& step, std::size_t block) {
  const auto apply = [&](std::size_t begin, std::span<const double> delta) {
    std::vector<std::span<float>> state;
    for (const std::span<float>& whole : update.state) state.push_back(whole.subspan(begin, delta.size()));
    step.rule->apply(step.lr, update.theta.subspan(begin, delta.size()), delta, state);
  };
  if (update.maker) return update.maker->make(block, apply);
  const std::size_t begin = block * stored_block;
  apply(begin, update.delta.subspan(begin, std::min(stored_block, update.delta.size() - begin)));
}

}  // namespace

bool restart_state(std::int64_t every, std::int64_t version, std::span<const Update> updates) {
  if (every <= 0 || version <= 1 || (version - 1) % every != 0) return false;
  for (const Update& update : updates) {
    for (const std::span<float>& state : update.state) std::ranges::fill(state, 0.0f);
  }
  return true;
}

void decay_weights(double amount, const Update& update) {
  if (amount == 0 || (update.spec != nullptr && !update.spec->decay)) return;
  for (float& value : update.theta) value = static_cast<float>(static_cast<double>(value) * (1 - amount));
}

std::vector<RowSet> fragment_rows(const OuterMethod& method, const std::vector<ParamSpec>& specs) {
  std::vector<RowSet> rows;
  for (const std::vector<std::string>& pieces : method.fragments())
    rows.push_back(rows_of_pieces(pieces, specs));
  return rows;
}

DeltaProducts products_of(std::span<const double> delta, std::span<const float> momentum) {
  double sums[3] = {};
  rule_kernels().products(delta.data(), momentum.empty() ? nullptr : momentum.data(), delta.size(), sums);
  return {sums[0], sums[1], sums[2]};
}

/// By blocks, which are added up in order: the bits do not depend on the number of threads.
DeltaProducts products_of(const Update& update) {
  if (update.products) return *update.products;
  if (update.maker) return update.maker->products();
  std::vector<DeltaProducts> blocks(stored_blocks(update.delta.size()));
  parallel_for(blocks.size(), update.threads, [&](std::size_t i) {
    const std::size_t begin = i * stored_block, count = std::min(stored_block, update.delta.size() - begin);
    std::span<const float> momentum;
    if (!update.state.empty()) momentum = update.state[0].subspan(begin, count);
    blocks[i] = products_of(update.delta.subspan(begin, count), momentum);
  });
  DeltaProducts all;
  for (const DeltaProducts& part : blocks) all += part;
  return all;
}

void apply_rules(std::span<const Update> updates, const std::function<RuleStep(const Update&)>& step_of) {
  struct Block {
    const Update* update;
    RuleStep step;
    std::size_t index;
  };
  std::vector<Block> blocks;
  int threads = 1;
  for (const Update& update : updates) {
    if (!update.maker) TESSERA_CHECK_EQ(update.delta.size(), update.theta.size());
    const std::size_t count = update.maker ? update.maker->blocks() : stored_blocks(update.theta.size());
    const RuleStep step = step_of(update);
    for (std::size_t i = 0; i < count; ++i) blocks.push_back({&update, step, i});
    threads = std::max(threads, update.threads);
  }
  parallel_for(blocks.size(), threads, [&](std::size_t i) {
    const auto& [update, step, index] = blocks[i];
    apply_block(*update, step, index);
  });
}

std::vector<std::string> outer_rule_names() {
  return {"adam", "nesterov", "sgd"};
}

std::unique_ptr<OuterRule> make_outer_rule(const std::string& rule, double momentum, OuterAdam adam) {
  if (rule == "adam") return std::make_unique<Adam>(momentum, adam);
  if (rule == "sgd" || (rule == "nesterov" && momentum == 0)) return std::make_unique<Sgd>();
  TESSERA_CHECK(rule == "nesterov", ": no outer rule named ", rule,
                "; known: ", join(outer_rule_names(), ", "));
  return std::make_unique<Nesterov>(momentum);
}

}  // namespace tessera
