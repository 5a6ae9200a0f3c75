// What the schedules share: warmup, horizon and final fraction, as settings and as arithmetic.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"

namespace tessera {

/// warmup(s) = min(1, (s + 1) / warmup) at 0-based step s: the first step is not lost, the last of the warmup
/// is at full rate.
struct WarmupSettings : Settings {
  std::int64_t warmup = 0;
  void fields(FieldVisitor& f) override;
};

/// A warmup and an end: where the horizon is, and what fraction of the base rate is left there.
struct HorizonSettings : WarmupSettings {
  std::int64_t horizon = 0;
  double final = 0.1;
  void fields(FieldVisitor& f) override;
  std::vector<std::string> problems() const override;
};

double warmup_factor(std::int64_t step, std::int64_t warmup);

/// How far `step` has come from `begin` (0) to `end` (1), held at both. An unknown end (0) is never
/// approached.
double progress(std::int64_t step, std::int64_t begin, std::int64_t end);

}  // namespace tessera
