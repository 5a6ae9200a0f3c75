// factor(s) = warmup(s): the base rate throughout, after the warmup.
#include "optim/schedule.h"
#include "optim/schedule_parts.h"

namespace tessera {
namespace {

class Constant final : public Schedule {
 public:
  Constant(const WarmupSettings& settings, const Context&) : warmup_(settings.warmup) {}
  double factor(std::int64_t step) const override { return warmup_factor(step, warmup_); }

 private:
  std::int64_t warmup_;
};

}  // namespace

TESSERA_REGISTER(Schedule, constant, Constant, WarmupSettings, "the base rate throughout, after a warmup");

}  // namespace tessera
