// What methods share that are DiLoCo but for a few things (optim/outer/).
#pragma once
#include <cmath>
#include <string>

#include "optim/outer.h"

namespace tessera {

/// DiLoCo with the context given: the base of methods that override what they do otherwise.
class LikeDiLoCo : public OuterMethod {
 public:
  explicit LikeDiLoCo(const Context& context)
      : diloco_(Registry<OuterMethod>::builtin().make("diloco", context)) {}

  std::vector<std::vector<std::string>> fragments() const override { return diloco_->fragments(); }
  Due due(std::int64_t step) const override { return diloco_->due(step); }
  std::int64_t steps_per_merge() const override { return diloco_->steps_per_merge(); }
  std::vector<std::string> state_names() const override { return diloco_->state_names(); }
  std::vector<std::string> cut_state_names() const override { return diloco_->cut_state_names(); }
  bool needs_deltas() const override { return diloco_->needs_deltas(); }
  bool needs_sums() const override { return diloco_->needs_sums(); }
  OuterReport apply(std::int64_t version, std::span<const Update> updates) const override {
    return diloco_->apply(version, updates);
  }

 private:
  std::unique_ptr<OuterMethod> diloco_;
};

/// The same with the outer step "sgd" at these rates, which at rate 1 lands on the mean exactly.
inline OuterMethod::Context with_plain_step(OuterMethod::Context context, double lr = 1, double cut_lr = 1) {
  context.rule = "sgd";
  context.lr = lr;
  context.cut = OuterStep{cut_lr, 0};
  context.weight_decay = 0;
  context.restart_every = 0;
  return context;
}

/// For methods whose slots bring what has changed since the version that they started from (Payload::delta).
inline void bring_change(const OwnRows& own) {
  for (std::size_t i = 0; i < own.value.size(); ++i)
    own.brought[i] =
        static_cast<float>(static_cast<double>(own.committed[i]) - static_cast<double>(own.value[i]));
}

/// Sentences on what a recipe asks for that a method cannot do.
class Refusals {
 public:
  explicit Refusals(std::string method) : method_(std::move(method)) {}
  void refuse(bool asked, const std::string& setting, const std::string& reason) {
    if (asked) found_.push_back(setting + " does not go with outer.name = \"" + method_ + "\": " + reason);
  }
  /// Settings of an outer optimizer, of a method that has none. `rate`: its own is no setting either.
  void refuse_outer_step(const OuterMethod::Context& asked, const std::string& reason, bool rate) {
    const auto is_set = [](double lr) { return !std::isnan(lr) && lr != 1; };
    refuse(rate && is_set(asked.lr), "outer.lr", reason);
    refuse(rate && asked.cut && is_set(asked.cut->lr), "outer.cut_lr", reason);
    refuse(asked.rule == "adam", "outer.rule = \"adam\"", reason);
    refuse(asked.weight_decay != 0, "outer.weight_decay", reason);
    refuse(asked.restart_every != 0, "outer.restart_every", reason);
  }
  const std::vector<std::string>& found() const { return found_; }

 private:
  std::string method_;
  std::vector<std::string> found_;
};

}  // namespace tessera
