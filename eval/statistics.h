// Means, spreads and Student's t interval of paired differences: what a verdict on a few seeds may rest on.
// Torch-free.
#pragma once
#include <span>

namespace tessera {

double mean(std::span<const double> values);       ///< NaN for none
double median(std::span<const double> values);     ///< NaN for none
double sample_sd(std::span<const double> values);  ///< with n - 1 below the line; NaN for fewer than two

/// I_x(a, b), the regularized incomplete beta function, for a, b > 0 and x in [0, 1], by Lentz's continued
/// fraction on the side where it converges fast (Press et al., Numerical Recipes, 6.4).
double incomplete_beta(double a, double b, double x);
/// P(T <= t) of Student's distribution with `freedom` > 0 degrees of freedom.
double student_cdf(double t, double freedom);
/// The t with student_cdf(t) = probability, which lies in (0, 1): bisection, so as exact as the cdf is.
double student_quantile(double probability, double freedom);

/// An interval that holds the true mean with the asked confidence, if the values are independent and normal.
struct MeanInterval {
  double mean = 0, low = 0, high = 0;  ///< with one value low and high are infinite, with none all are NaN
  int count = 0;
};
MeanInterval mean_interval(std::span<const double> values, double confidence = 0.95);

/// What an interval of "how much worse than allowed" says of a claim that it is at most `margin`.
enum class Verdict { holds, fails, undecided };
/// holds: the whole interval is at or below the margin; fails: all of it is above; undecided: neither, or
/// there is no finite interval.
Verdict judge_at_most(const MeanInterval& interval, double margin);
const char* word_of(Verdict verdict);

}  // namespace tessera
