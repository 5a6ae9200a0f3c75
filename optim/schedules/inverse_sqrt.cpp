// The schedule of the Transformer (arXiv 1706.03762, section 5.3), scaled to reach the base rate at the end
// of the warmup. With w = max(1, warmup):
//   factor(s) = min((s + 1) / w, sqrt(w / (s + 1)))
#include <algorithm>
#include <cmath>

#include "optim/schedule.h"
#include "optim/schedule_parts.h"

namespace tessera {
namespace {

struct InverseSqrtSettings : WarmupSettings {
  InverseSqrtSettings() { warmup = 1000; }
};

class InverseSqrt final : public Schedule {
 public:
  InverseSqrt(const InverseSqrtSettings& settings, const Context&)
      : warmup_(std::max<std::int64_t>(1, settings.warmup)) {}
  double factor(std::int64_t step) const override {
    const double decayed = std::sqrt(static_cast<double>(warmup_) / static_cast<double>(step + 1));
    return std::min(warmup_factor(step, warmup_), decayed);
  }

 private:
  std::int64_t warmup_;
};

}  // namespace

TESSERA_REGISTER(Schedule, inverse_sqrt, InverseSqrt, InverseSqrtSettings,
                 "warmup, then falling with the square root of the step; knows no horizon");

}  // namespace tessera
