// Eager updates (arXiv 2502.12996): a slot does not wait for the merge of its round. It takes the outer step
// with its own fresh delta and the others' of the round before, and the merge has (nearly) a whole round of
// time.
//
// The paper keeps an outer optimizer on every replica k and feeds it
//   mean^(t-1) + (Delta_k^(t) - Delta_k^(t-1)) / M.
// Nesterov is linear, so that state is the sum of two: what the means alone make, which is the coordinator's
// Theta^(t), and what the differences make, which telescopes. With e = Delta_k^(t) / M and B = mu B + e, slot
// k goes on from
//   Theta^(t-1) - lr (e + mu B)
// and keeps B and the place where it began. Its deltas are from that place, so it brings them itself.
#include "optim/outer_parts.h"

namespace tessera {
namespace {

class Eager final : public LikeDiLoCo {
 public:
  Eager(const NoSettings&, const Context& context) : LikeDiLoCo(context), asked_(context) {
    if (asked_.rule == "sgd") asked_.momentum = 0;
    cut_ = asked_.cut.value_or(OuterStep{asked_.lr, asked_.momentum});
    if (asked_.rule == "sgd") cut_.momentum = 0;
  }

  std::vector<std::string> problems() const override {
    Refusals refusals("eager");
    const auto refuse = [&](bool asked, const char* setting, const char* reason) {
      refusals.refuse(asked, setting, reason);
    };
    refuse(std::isnan(asked_.lr), "outer.lr = \"auto\"",
           "slots take a share of the outer step before the merge is made; give it a number");
    refuse(asked_.slices > 1 && std::isnan(cut_.lr), "outer.cut_lr = \"auto\"",
           "slots take a share of the outer step before the merge is made; give it a number");
    refuse(asked_.rule == "adam", "outer.rule = \"adam\"", "a share of its step is not the step of a share");
    refuse(asked_.weight_decay != 0, "outer.weight_decay", "slots cannot take a share of it beforehand");
    refuse(asked_.restart_every != 0, "outer.restart_every", "slots keep outer momentum of their own");
    refuse(asked_.keeps_fast, "partial.owner_view = \"fast\"",
           "slots go on from an outer step of their own, not from what they had");
    refuse(asked_.rotates, "partial.rotate_every", "slots keep outer momentum of their own rows");
    return refusals.found();
  }

  /// What was pushed at the end of a round is adopted before the last step of the next: just in time for the
  /// push that builds on it.
  Due due(std::int64_t step) const override {
    Due due;
    if ((step + 1) % asked_.steps == 0) due.push = {0};
    if ((step + 1) % asked_.steps == 0 && step >= asked_.steps) due.adopt = {0};
    return due;
  }
  Payload payload() const override { return Payload::delta; }
  /// Adopting touches only what others train; the slot's own rows follow when it pushes.
  double own_share() const override { return 1; }

  std::vector<std::string> own_state_names() const override { return {"start", "momentum"}; }
  bool changes_pushes() const override { return true; }
  void push(const OwnRows& own) const override {
    const double lr = own.cut ? cut_.lr : asked_.lr, mu = own.cut ? cut_.momentum : asked_.momentum;
    for (std::size_t i = 0; i < own.value.size(); ++i) {
      float& start = own.state[0][i];
      if (own.first) start = own.committed[i];
      own.brought[i] = static_cast<float>(static_cast<double>(start) - static_cast<double>(own.value[i]));
      const double e = static_cast<double>(own.brought[i]) / own.owners;
      const double b = mu * static_cast<double>(own.state[1][i]) + e;
      own.state[1][i] = static_cast<float>(b);
      own.value[i] = start = static_cast<float>(static_cast<double>(own.committed[i]) - lr * (e + mu * b));
    }
  }

 private:
  Context asked_;
  OuterStep cut_;
};

}  // namespace

TESSERA_REGISTER(
    OuterMethod, eager, Eager, NoSettings,
    "DiLoCo whose merges have a round of time: slots go ahead with their own share (arXiv 2502.12996)");

}  // namespace tessera
