// Local SGD, in federated learning FedAvg (arXiv 1602.05629): H local steps, then everybody goes on from the
// plain mean. The mean weighs slots equally, since all take equally many samples.
#include <cmath>

#include "optim/outer.h"

namespace tessera {
namespace {

/// DiLoCo with the outer step "sgd at rate 1", which lands on the mean exactly.
OuterMethod::Context averaging(OuterMethod::Context context) {
  context.rule = "sgd";
  context.lr = 1;
  context.cut = OuterStep{1, 0};
  context.weight_decay = 0;
  context.restart_every = 0;
  return context;
}

class LocalSgd final : public OuterMethod {
 public:
  LocalSgd(const NoSettings&, const Context& context)
      : asked_(context), mean_(Registry<OuterMethod>::builtin().make("diloco", averaging(context))) {}

  std::vector<std::string> problems() const override {
    std::vector<std::string> found;
    const auto refuse = [&](bool set, const char* setting) {
      if (set)
        found.push_back(std::string(setting) +
                        " has no meaning with outer.name = \"local_sgd\", which goes on from the mean");
    };
    refuse(!std::isnan(asked_.lr) && asked_.lr != 1, "outer.lr");
    refuse(asked_.cut && !std::isnan(asked_.cut->lr) && asked_.cut->lr != 1, "outer.cut_lr");
    refuse(asked_.weight_decay != 0, "outer.weight_decay");
    refuse(asked_.restart_every != 0, "outer.restart_every");
    return found;
  }
  std::vector<std::vector<std::string>> fragments() const override { return mean_->fragments(); }
  Due due(std::int64_t step) const override { return mean_->due(step); }
  std::int64_t steps_per_merge() const override { return mean_->steps_per_merge(); }
  std::vector<std::string> state_names() const override { return {}; }
  OuterReport apply(std::int64_t version, std::span<const Update> updates) const override {
    return mean_->apply(version, updates);
  }

 private:
  Context asked_;
  std::unique_ptr<OuterMethod> mean_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, local_sgd, LocalSgd, NoSettings,
                 "local steps on every slot, then the plain mean: FedAvg (arXiv 1602.05629)");

}  // namespace tessera
