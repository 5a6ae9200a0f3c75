// Learning-rate schedules: a factor of the base rate as a function of the slot's step alone, so a restart
// needs no state. One file per schedule in optim/schedules/. Torch-free.
#pragma once
#include <cstdint>

#include "base/registry.h"

namespace tessera {

class Schedule {
 public:
  struct Context {
    std::int64_t horizon =
        0;  ///< inner steps of the whole run (rounds x steps), where the settings do not say
  };
  static constexpr const char* kind = "schedule";
  virtual ~Schedule() = default;
  /// Factor of the base learning rate at 0-based step `step`.
  virtual double factor(std::int64_t step) const = 0;
};

}  // namespace tessera
