// With t = (s - warmup) / (horizon - warmup), held in [0, 1]:
//   factor(s) = warmup(s) (1 - (1 - final) t)
#include "optim/schedule.h"
#include "optim/schedule_parts.h"

namespace tessera {
namespace {

class Linear final : public Schedule {
 public:
  Linear(const HorizonSettings& settings, const Context& context)
      : warmup_(settings.warmup),
        horizon_(settings.horizon > 0 ? settings.horizon : context.horizon),
        final_(settings.final) {}
  double factor(std::int64_t step) const override {
    return warmup_factor(step, warmup_) * (1 - (1 - final_) * progress(step, warmup_, horizon_));
  }

 private:
  std::int64_t warmup_, horizon_;
  double final_;
};

}  // namespace

TESSERA_REGISTER(Schedule, linear, Linear, HorizonSettings,
                 "warmup, then a straight line to `final` at the horizon");

}  // namespace tessera
