#include "monitoring/plot_scale.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.h"

namespace tessera {
namespace {

constexpr int padding_ticks = 6;

/// Drops the noise of multiplied steps: 0.30000000000000004 becomes 0.3.
double rounded(double value, double step) {
  if (step >= 1) return std::round(value);
  const double scale = std::pow(10.0, std::ceil(-std::log10(step)));
  return std::round(value * scale) / scale;
}

std::vector<double> linear_ticks(double low, double high, int wanted) {
  const double step = nice_step(high - low, wanted), slack = 1e-9 * step;
  std::vector<double> ticks;
  for (double index = std::ceil((low - slack) / step); index * step <= high + slack; ++index)
    ticks.push_back(index == 0 ? 0.0 : rounded(index * step, step));
  return ticks;
}

/// Powers of ten, thinned out to about `wanted`; with 2 and 5 between them when they are few.
std::vector<double> log_ticks(double low, double high, int wanted) {
  const double decades = std::log10(high / low);
  if (decades < 1) return linear_ticks(low, high, wanted);
  const int every = std::max(1, static_cast<int>(std::ceil(decades / wanted)));
  std::vector<double> ticks;
  for (int exponent = static_cast<int>(std::floor(std::log10(low))); exponent <= std::ceil(std::log10(high));
       ++exponent) {
    if (exponent % every != 0) continue;
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10.0, exponent);
      if ((factor == 1 || decades * 2 <= wanted) && tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9))
        ticks.push_back(tick);
    }
  }
  return ticks;
}

}  // namespace

double nice_step(double length, int wanted) {
  const double rough = length / wanted, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

PlotScale PlotScale::fitting(std::span<const double> values, bool logarithmic, bool pad) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : values) {
    if (!std::isfinite(value) || (logarithmic && value <= 0)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > high) return logarithmic ? PlotScale(1, 10, true) : PlotScale(0, 1, false);
  if (low == high) {  // one value: in the middle
    const double around = low == 0 ? 1 : std::abs(low) / 2;
    return logarithmic ? PlotScale(low / 2, high * 2, true) : PlotScale(low - around, high + around, false);
  }
  if (!pad) return {low, high, logarithmic};
  if (logarithmic) return {low / std::pow(high / low, 0.05), high * std::pow(high / low, 0.05), true};
  const double step = nice_step(high - low, padding_ticks);
  return {std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, false};
}

bool PlotScale::shows(double value) const {
  return std::isfinite(value) && (!logarithmic_ || value > 0);
}

double PlotScale::operator()(double value) const {
  if (logarithmic_) return std::log(value / low_) / std::log(high_ / low_);
  return (value - low_) / (high_ - low_);
}

std::vector<double> PlotScale::ticks(int wanted) const {
  return logarithmic_ ? log_ticks(low_, high_, wanted) : linear_ticks(low_, high_, wanted);
}

std::string tick_label(double value) {
  const double size = std::abs(value);
  const auto with = [&](double unit, const char* name) {
    return format_double(std::round(value / unit * 1e6) / 1e6) + name;
  };
  if (size >= 1e15) return format_double(value);
  if (size >= 1e9) return with(1e9, " G");
  if (size >= 1e6) return with(1e6, " M");
  if (size >= 1e4) return with(1e3, " k");
  if (size >= 1e-3 || size == 0) return format_double(std::round(value * 1e9) / 1e9);
  const double power = std::pow(10.0, std::floor(std::log10(size)));
  return format_double(std::round(value / power * 1e6) / 1e6 * power);
}

}  // namespace tessera
