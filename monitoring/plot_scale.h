// The axis of a plot: which range it shows, where values fall on it, and where its ticks are. Pure
// arithmetic.
#pragma once
#include <span>
#include <string>
#include <vector>

namespace tessera {

/// Maps values to [0, 1] along an axis, linearly or by logarithm.
class PlotScale {
 public:
  /// A range that shows all values; on a logarithmic axis only those above 0 count. Without any, [0, 1] or
  /// [1, 10]. `pad` widens a linear axis to whole tick steps, so that lines do not touch the frame.
  static PlotScale fitting(std::span<const double> values, bool logarithmic, bool pad);
  PlotScale(double low, double high, bool logarithmic) : low_(low), high_(high), logarithmic_(logarithmic) {}

  bool shows(double value) const;  ///< finite, and above 0 on a logarithmic axis
  double operator()(double value) const;
  double low() const { return low_; }
  double high() const { return high_; }
  /// Ascending, inside the range, about `wanted` of them: 1, 2 or 5 times a power of ten.
  std::vector<double> ticks(int wanted) const;

 private:
  double low_, high_;
  bool logarithmic_;
};

/// The distance between linear ticks: 1, 2 or 5 times a power of ten, so that about `wanted` steps cover the
/// length.
double nice_step(double length, int wanted);

/// A tick's number, as short as the distance between ticks allows: "2.5", "30 k", "1e-05".
std::string tick_label(double value);

}  // namespace tessera
