// Half a cosine (Loshchilov and Hutter, arXiv 1608.03983, without restarts). With t = (s - warmup) / (horizon
// - warmup), held in [0, 1]:
//   factor(s) = warmup(s) (final + (1 - final) (1 + cos(pi t)) / 2)
#include <cmath>
#include <numbers>

#include "optim/schedule.h"
#include "optim/schedule_parts.h"

namespace tessera {
namespace {

class Cosine final : public Schedule {
 public:
  Cosine(const HorizonSettings& settings, const Context& context)
      : warmup_(settings.warmup),
        horizon_(settings.horizon > 0 ? settings.horizon : context.horizon),
        final_(settings.final) {}
  double factor(std::int64_t step) const override {
    const double wave = (1 + std::cos(std::numbers::pi * progress(step, warmup_, horizon_))) / 2;
    return warmup_factor(step, warmup_) * (final_ + (1 - final_) * wave);
  }

 private:
  std::int64_t warmup_, horizon_;
  double final_;
};

}  // namespace

TESSERA_REGISTER(Schedule, cosine, Cosine, HorizonSettings,
                 "warmup, then half a cosine to `final` at the horizon");

}  // namespace tessera
