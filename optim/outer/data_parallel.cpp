// Data parallel: every step, the coordinator averages the gradients and takes the inner optimizer's step
// itself. The baseline that low-communication methods are measured against: it moves H times the bytes.
#include "optim/outer.h"

namespace tessera {
namespace {

class DataParallel final : public OuterMethod {
 public:
  DataParallel(const NoSettings&, const Context& context) : gradient_step_(context.gradient_step) {
    TESSERA_CHECK(context.steps == 1, ": data_parallel merges after every step, sync.steps is ",
                  context.steps);
    for (const ParamSpec& spec : context.specs) {
      if (travels(spec.role)) names_.push_back(spec.name);
    }
  }

  std::vector<std::vector<std::string>> fragments() const override { return {names_}; }
  Due due(std::int64_t step) const override {
    Due due;
    if (step > 0) due.adopt = {0};
    due.push = {0};
    return due;
  }
  std::int64_t steps_per_merge() const override { return 1; }
  bool steps_locally() const override { return false; }
  Payload payload() const override { return Payload::gradient; }
  std::vector<std::string> state_names() const override { return optimizer().state_names(); }
  void apply(std::int64_t version, std::span<const Update> updates) const override {
    optimizer().apply(version, updates);
  }

 private:
  // Absent on workers, whose half of the method needs none.
  const GradientStep& optimizer() const {
    TESSERA_CHECK(gradient_step_ != nullptr,
                  ": the coordinator's half of data_parallel needs a gradient step");
    return *gradient_step_;
  }

  std::shared_ptr<const GradientStep> gradient_step_;
  std::vector<std::string> names_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, data_parallel, DataParallel, NoSettings,
                 "gradients of every step are averaged and the coordinator steps; sync.steps must be 1");

}  // namespace tessera
