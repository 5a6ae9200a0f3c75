#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"

namespace tessera {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The continued fraction of the incomplete beta function, which converges fast for x < (a + 1) / (a + b +
/// 2).
double beta_fraction(double a, double b, double x) {
  constexpr double tiny = 1e-300, enough = 1e-16;
  constexpr int most = 100000;
  const auto away_from_zero = [](double value) { return std::abs(value) < tiny ? tiny : value; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), result = d;
  for (int m = 1; m <= most; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    result *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    result *= d * c;
    if (std::abs(d * c - 1) < enough) break;
  }
  return result;
}

}  // namespace

double mean(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? kNaN : sum / static_cast<double>(values.size());
}

double median(std::span<const double> values) {
  if (values.empty()) return kNaN;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

double sample_sd(std::span<const double> values) {
  if (values.size() < 2) return kNaN;
  const double middle = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - middle) * (value - middle);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double incomplete_beta(double a, double b, double x) {
  TESSERA_CHECK(a > 0 && b > 0 && x >= 0 && x <= 1, ": a ", a, ", b ", b, ", x ", x);
  if (x == 0 || x == 1) return x;
  const double logarithm =
      std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x);
  const double front = std::exp(logarithm);
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double student_cdf(double t, double freedom) {
  TESSERA_CHECK(freedom > 0, ": freedom ", freedom);
  // Near 0 from what lies inside [-|t|, |t|], further out from the tail, so that both keep their digits.
  const double inside = t * t < freedom ? incomplete_beta(0.5, freedom / 2, t * t / (freedom + t * t))
                                        : 1 - incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t));
  if (t >= 0) return 0.5 + inside / 2;
  return t * t < freedom ? 0.5 - inside / 2
                         : incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2;
}

double student_quantile(double probability, double freedom) {
  TESSERA_CHECK(probability > 0 && probability < 1, ": probability ", probability);
  // By symmetry the quantile is sought on the negative side, where the cdf is a small number with all its
  // digits.
  const bool upper = probability > 0.5;
  const double tail = upper ? 1 - probability : probability;
  double low = -1, high = 0;
  while (student_cdf(low, freedom) > tail) low *= 2;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle == low || middle == high) break;
    (student_cdf(middle, freedom) < tail ? low : high) = middle;
  }
  return upper ? -high : high;
}

MeanInterval mean_interval(std::span<const double> values, double confidence) {
  const int count = static_cast<int>(values.size());
  if (count == 0) return {kNaN, kNaN, kNaN, 0};
  const double middle = mean(values);
  if (count == 1) {
    const double infinity = std::numeric_limits<double>::infinity();
    return {middle, -infinity, infinity, 1};
  }
  const double half =
      student_quantile(0.5 + confidence / 2, count - 1) * sample_sd(values) / std::sqrt(count);
  return {middle, middle - half, middle + half, count};
}

Verdict judge_at_most(const MeanInterval& interval, double margin) {
  if (!std::isfinite(interval.low) || !std::isfinite(interval.high)) return Verdict::undecided;
  if (interval.high <= margin) return Verdict::holds;
  return interval.low > margin ? Verdict::fails : Verdict::undecided;
}

const char* word_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::holds:
      return "holds";
    case Verdict::fails:
      return "fails";
    case Verdict::undecided:
      break;
  }
  return "undecided";
}

}  // namespace tessera
