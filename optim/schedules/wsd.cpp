// Warmup, stable, decay (arXiv 2404.06395). The decay takes the last d = decay x horizon steps; with t = (s -
// (horizon - d)) / d, held in [0, 1]:
//   factor(s) = warmup(s) (1 - (1 - final) t)          shape "linear"
//   factor(s) = warmup(s) (1 - (1 - final) sqrt(t))    shape "sqrt" (arXiv 2405.18392)
#include <algorithm>
#include <cmath>

#include "optim/schedule.h"
#include "optim/schedule_parts.h"

namespace tessera {
namespace {

struct WsdSettings : HorizonSettings {
  double decay = 0.2;
  std::string shape = "linear";
  void fields(FieldVisitor& f) override {
    HorizonSettings::fields(f);
    f.field({"decay", "share of the horizon that the final decay takes", fraction()}, decay);
    f.field({"shape", "how the decay falls", one_of({"linear", "sqrt"})}, shape);
  }
};

class Wsd final : public Schedule {
 public:
  Wsd(const WsdSettings& settings, const Context& context)
      : warmup_(settings.warmup),
        horizon_(settings.horizon > 0 ? settings.horizon : context.horizon),
        final_(settings.final),
        root_(settings.shape == "sqrt") {
    const auto decay = std::llround(settings.decay * static_cast<double>(horizon_));
    decay_begin_ = std::max<std::int64_t>(warmup_, horizon_ - decay);
  }
  double factor(std::int64_t step) const override {
    const double t = progress(step, decay_begin_, horizon_);
    return warmup_factor(step, warmup_) * (1 - (1 - final_) * (root_ ? std::sqrt(t) : t));
  }

 private:
  std::int64_t warmup_, horizon_, decay_begin_ = 0;
  double final_;
  bool root_;
};

}  // namespace

TESSERA_REGISTER(Schedule, wsd, Wsd, WsdSettings,
                 "warmup, a stable stretch at the base rate, and a short decay at the end");

}  // namespace tessera
