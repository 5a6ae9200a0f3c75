#include "optim/loss_scale.h"

#include <cmath>

#include "base/error.h"

namespace tessera {
namespace {

constexpr std::int64_t most_exponent = 30;  ///< its reciprocal is still a normal fp32 number

bool power_of_two(double x) {
  int exponent = 0;
  return x > 0 && std::frexp(x, &exponent) == 0.5;
}

std::int64_t exponent_of(double x) {
  return std::ilogb(x);
}

}  // namespace

void LossScaleSettings::fields(FieldVisitor& f) {
  f.field({"initial", "scale of the first steps, a power of two"}, initial);
  f.field({"growth", "good steps in a row after which the scale doubles", at_least(1)}, growth);
  f.field({"least", "scale at which one more overflow ends the run, a power of two"}, least);
}

std::vector<std::string> LossScaleSettings::problems() const {
  std::vector<std::string> found;
  for (const auto& [name, value] : {std::pair{"initial", initial}, std::pair{"least", least}}) {
    if (!power_of_two(value) || exponent_of(value) > most_exponent || exponent_of(value) < -most_exponent)
      found.push_back(std::string(name) + " must be a power of two between 2^-30 and 2^30");
  }
  if (found.empty() && least > initial) found.push_back("least is more than initial");
  return found;
}

LossScale::LossScale(const LossScaleSettings& settings)
    : growth_(settings.growth),
      exponent_(exponent_of(settings.initial)),
      least_(exponent_of(settings.least)) {
  TESSERA_CHECK(settings.problems().empty());
}

double LossScale::value() const {
  return std::ldexp(1.0, static_cast<int>(exponent_));
}

void LossScale::good_step() {
  if (++good_ < growth_) return;
  good_ = 0;
  if (exponent_ < most_exponent) ++exponent_;
}

bool LossScale::overflow() {
  good_ = 0;
  ++skipped_;
  if (exponent_ <= least_) return false;
  --exponent_;
  return true;
}

bool LossScale::load(const std::vector<std::int64_t>& state) {
  if (state.size() != 3 || std::abs(state[0]) > most_exponent || state[1] < 0 || state[2] < 0) return false;
  exponent_ = state[0];
  good_ = state[1];
  skipped_ = state[2];
  return true;
}

}  // namespace tessera
