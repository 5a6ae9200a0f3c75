#include "optim/schedule.h"

#include <algorithm>

#include "optim/schedule_parts.h"

namespace tessera {

void WarmupSettings::fields(FieldVisitor& f) {
  f.field({"warmup", "inner steps over which the learning rate rises linearly from 0 to its base value",
           at_least(0)},
          warmup);
}

void HorizonSettings::fields(FieldVisitor& f) {
  WarmupSettings::fields(f);
  f.field({"horizon", "inner step at which the schedule ends; 0: the length of the run (rounds x sync.steps)",
           at_least(0)},
          horizon);
  f.field({"final", "fraction of the base learning rate at the horizon and after it", fraction()}, final);
}

std::vector<std::string> HorizonSettings::problems() const {
  if (horizon == 0 || warmup < horizon) return {};
  return {"schedule.warmup = " + std::to_string(warmup) +
          " must end before schedule.horizon = " + std::to_string(horizon)};
}

double warmup_factor(std::int64_t step, std::int64_t warmup) {
  return warmup <= 0 ? 1.0 : std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(warmup));
}

double progress(std::int64_t step, std::int64_t begin, std::int64_t end) {
  if (end <= 0 || step <= begin) return 0;
  if (step >= end) return 1;
  return static_cast<double>(step - begin) / static_cast<double>(end - begin);
}

}  // namespace tessera
