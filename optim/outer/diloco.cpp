// DiLoCo (arXiv 2311.08105): one fragment, H local steps between merges, an outer step on the mean change.
// With a cut it is the partial-update method of arXiv 2509.22418: the mean is then over the owners of each
// coordinate.
#include "optim/outer.h"

namespace tessera {
namespace {

class DiLoCo final : public OuterMethod {
 public:
  DiLoCo(const NoSettings&, const Context& context)
      : steps_(context.steps), rule_(make_outer_rule(context.rule, context.lr, context.momentum)) {
    TESSERA_CHECK_LE(1, steps_);
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
  std::vector<std::string> state_names() const override { return rule_->state_names(); }
  void apply(std::int64_t, std::span<const Update> updates) const override {
    for (const Update& update : updates) rule_->apply(update.theta, update.delta, update.state);
  }

 private:
  std::int64_t steps_;
  std::unique_ptr<OuterRule> rule_;
  std::vector<std::string> names_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, diloco, DiLoCo, NoSettings,
                 "local steps on every slot, then an outer step on the mean change (arXiv 2311.08105)");

}  // namespace tessera
