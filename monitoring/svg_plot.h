// Line plots as SVG text: title, axes with ticks, legend, several series, logarithmic axes. The picture
// carries its own light and dark colours and follows the reader's choice. Knows nothing of what it shows.
#pragma once
#include <string>
#include <vector>

#include "base/error.h"

namespace tessera {

struct PlotSeries {
  std::string name;
  std::vector<double> x,
      y;  ///< of equal length; a value that is not finite (or not above 0 on a logarithmic axis) is a gap
  bool faint = false;  ///< thin and pale: raw values behind a smooth curve
};

/// A dashed horizontal line with a label, for baselines.
struct PlotLevel {
  std::string name;
  double y = 0;
};

struct PlotAxis {
  std::string label;  ///< with the unit: "loss (nats per token)"
  bool logarithmic = false;
};

struct Plot {
  std::string title;
  std::string subtitle;
  PlotAxis x, y;
  std::vector<PlotSeries> series;
  std::vector<PlotLevel> levels;
  int width = 860, height = 480;  ///< of the view box, in user units; text is 13
};

/// The picture. Series with few points get markers; of very many points only those that can be seen are kept.
std::string svg_of(const Plot& plot);
/// Writes it whole or not at all (tmp + rename).
Status write_svg(const Plot& plot, const std::string& path);

/// Where the data area of a plot lies, in user units: points map into it linearly along each axis's scale.
struct PlotArea {
  double left, top, right, bottom;
};
PlotArea area_of(const Plot& plot);

}  // namespace tessera
