// DiLoCo (arXiv 2311.08105): one fragment, H local steps between merges, an outer step on the mean change.
// With a cut it is the partial-update method of arXiv 2509.22418: the mean is then over the owners of each
// coordinate, and cut coordinates have an outer step of their own, since fewer slots stand behind each.
#include <algorithm>
#include <cmath>

#include "optim/outer.h"
#include "optim/outer_gain.h"

namespace tessera {
namespace {

class DiLoCo final : public OuterMethod {
 public:
  DiLoCo(const NoSettings&, const Context& context)
      : steps_(context.steps),
        slots_(context.slots),
        slices_(context.slices),
        cuts_(!context.slice_rows.empty()),
        shared_{context.lr, context.rule == "sgd" ? 0 : context.momentum},
        cut_(context.cut.value_or(shared_)),
        shared_rule_(make_outer_rule(context.rule, shared_.momentum, context.adam)),
        cut_rule_(make_outer_rule(context.rule, cut_.momentum, context.adam)),
        weight_decay_(context.weight_decay),
        restart_every_(context.restart_every) {
    TESSERA_CHECK_LE(1, steps_);
    if (context.rule == "sgd") cut_.momentum = 0;
    for (const ParamSpec& spec : context.specs) {
      if (travels(spec.role)) names_.push_back(spec.name);
    }
  }

  std::vector<std::vector<std::string>> fragments() const override { return {names_}; }
  Due due(std::int64_t step) const override {
    Due due;
    if (step > 0 && step % steps_ == 0) due.adopt = {0};
    if ((step + 1) % steps_ == 0) due.push = {0};
    return due;
  }
  std::int64_t steps_per_merge() const override { return steps_; }
  std::vector<std::string> state_names() const override { return shared_rule_->state_names(); }
  std::vector<std::string> cut_state_names() const override { return cut_rule_->state_names(); }

  /// Decay changes what a delta is counted from before the delta is applied.
  bool needs_deltas() const override { return weight_decay_ != 0; }
  bool needs_sums() const override { return std::isnan(shared_.lr) || (cuts_ && std::isnan(cut_.lr)); }
  OuterReport apply(std::int64_t version, std::span<const Update> updates) const override {
    const bool without_momentum = restart_state(restart_every_, version, updates);
    const bool sums_come_last = are_made_once(updates);
    OuterSignals signals;
    if (!sums_come_last) signals = signals_of(updates, without_momentum);
    OuterReport report{
        .lr = std::isnan(shared_.lr) ? shared_gain(signals, shared_.momentum, slices_) : shared_.lr,
        .cut_lr = std::isnan(cut_.lr) ? cut_gain(signals, cut_.momentum, slots_, slices_) : cut_.lr};
    for (const Update& update : updates)
      decay_weights((update.cut ? report.cut_lr : report.lr) * weight_decay_, update);
    apply_rules(updates, [&](const Update& update) {
      return update.cut ? RuleStep{cut_rule_.get(), report.cut_lr} : RuleStep{shared_rule_.get(), report.lr};
    });
    if (sums_come_last) signals = signals_of(updates, without_momentum);
    report.agreement = signals.agreement;
    report.persistence = signals.persistence;
    return report;
  }

 private:
  static bool are_made_once(std::span<const Update> updates) {
    return std::ranges::any_of(updates,
                               [](const Update& update) { return update.maker && !update.products; });
  }

  std::int64_t steps_;
  std::int32_t slots_, slices_;
  bool cuts_;
  OuterStep shared_, cut_;
  std::unique_ptr<OuterRule> shared_rule_, cut_rule_;
  double weight_decay_;
  std::int64_t restart_every_;
  std::vector<std::string> names_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, diloco, DiLoCo, NoSettings,
                 "local steps on every slot, then an outer step on the mean change (arXiv 2311.08105)");

}  // namespace tessera
