#include "monitoring/svg_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "monitoring/plot_scale.h"

namespace tessera {
namespace {

constexpr double text_size = 13, letter_width = 0.56 * text_size;  // an average; only spacing depends on it
constexpr std::size_t colours = 8, points_with_markers = 40;

// The classes' colours: first for light, then for dark surroundings. Eight hues that stay apart for
// colour-blind eyes too.
constexpr const char* style = R"(<style>
  text { font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }
  text { fill: #57606a; }
  .paper { fill: #ffffff; }
  .title { font-size: 17px; font-weight: 600; fill: #1f2328; }
  .legend { fill: #1f2328; }
  .grid { stroke: #e6e9ed; stroke-width: 1; }
  .axis { stroke: #9aa4af; stroke-width: 1; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
  .faint { stroke-width: 1; opacity: 0.35; }
  .level { stroke: #6e7781; stroke-width: 1.2; stroke-dasharray: 5 4; }
  .note { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; }
  .c0 { stroke: #1f6feb; } .c1 { stroke: #d9730d; } .c2 { stroke: #0f8a5f; } .c3 { stroke: #b5309b; }
  .c4 { stroke: #6f51d6; } .c5 { stroke: #0e8fa8; } .c6 { stroke: #c6293b; } .c7 { stroke: #6b7280; }
  .marker { fill: #ffffff; stroke-width: 1.6; }
  @media (prefers-color-scheme: dark) {
    text { fill: #9aa4af; } .paper { fill: #0d1117; } .title, .legend { fill: #e6edf3; }
    .grid { stroke: #232a33; } .axis { stroke: #58626d; } .level { stroke: #8b949e; }
    .note { stroke: #0d1117; }
    .c0 { stroke: #58a6ff; } .c1 { stroke: #f0a04b; } .c2 { stroke: #3fb98a; } .c3 { stroke: #e37fd0; }
    .c4 { stroke: #a78bfa; } .c5 { stroke: #4cc3dc; } .c6 { stroke: #ff7b72; } .c7 { stroke: #aab2bd; }
    .marker { fill: #0d1117; }
  }
</style>
)";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t')
      out += c;
  }
  return out;
}

/// A coordinate with at most two decimals.
std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  std::string out(text);
  out.erase(out.find_last_not_of('0') + 1);
  if (out.back() == '.') out.pop_back();
  return out == "-0" ? "0" : out;
}

double width_of(const std::string& text) {
  const auto is_letter_start = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  return letter_width * static_cast<double>(std::count_if(text.begin(), text.end(), is_letter_start));
}

std::string text_at(double x, double y, const std::string& attributes, const std::string& text) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" " + attributes + ">" + escaped(text) +
         "</text>\n";
}
std::string line_from(double x1, double y1, double x2, double y2, const std::string& kind) {
  return "<line class=\"" + kind + "\" x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" +
         number(x2) + "\" y2=\"" + number(y2) + "\"/>\n";
}

struct Point {
  double x, y;  // user units
};

constexpr double plot_left = 76, plot_right = 28, legend_row = 20;

struct LegendPlace {
  std::size_t series;
  double x;
  int row;
};
/// Where the names of the series go: as many in a row as fit, and at least one.
std::vector<LegendPlace> legend_of(const Plot& plot) {
  std::vector<LegendPlace> places;
  double x = plot_left;
  int row = 0;
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    const std::string& name = plot.series[i].name;
    if (name.empty()) continue;
    if (x > plot_left && x + 28 + width_of(name) > plot.width - plot_right + 20) {
      x = plot_left;
      ++row;
    }
    places.push_back({i, x, row});
    x += 27 + width_of(name) + 22;
  }
  return places;
}

/// Draws one plot, part by part.
class Painter {
 public:
  explicit Painter(const Plot& plot)
      : plot_(plot),
        area_(area_of(plot)),
        x_(scale(plot.x, &PlotSeries::x, false)),
        y_(scale(plot.y, &PlotSeries::y, true)) {}

  std::string paint() {
    const std::string width = std::to_string(plot_.width), height = std::to_string(plot_.height);
    out_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + width + " " + height + "\" width=\"" +
           width + "\" height=\"" + height + "\" role=\"img\">\n<title>" + escaped(plot_.title) +
           "</title>\n" + style + "<rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n";
    headings();
    axes();
    levels();
    for (std::size_t i = 0; i < plot_.series.size(); ++i) series(plot_.series[i], i % colours);
    if (!anything_)
      out_ += text_at((area_.left + area_.right) / 2, (area_.top + area_.bottom) / 2, middle, "no data yet");
    legend();
    return out_ + notes_ + "</svg>\n";
  }

 private:
  static constexpr const char* middle = "text-anchor=\"middle\"";
  static constexpr const char* to_the_left = "text-anchor=\"end\"";

  PlotScale scale(const PlotAxis& axis, std::vector<double> PlotSeries::*values, bool upright) const {
    std::vector<double> all;
    for (const PlotSeries& series : plot_.series) {
      TESSERA_CHECK_EQ(series.x.size(), series.y.size());
      all.insert(all.end(), (series.*values).begin(), (series.*values).end());
    }
    if (upright)
      for (const PlotLevel& level : plot_.levels) all.push_back(level.y);
    return PlotScale::fitting(all, axis.logarithmic, upright);
  }

  double at_x(double value) const { return area_.left + x_(value) * (area_.right - area_.left); }
  double at_y(double value) const { return area_.bottom - y_(value) * (area_.bottom - area_.top); }

  void headings() {
    out_ += text_at(area_.left, 32, "class=\"title\"", plot_.title);
    if (!plot_.subtitle.empty()) out_ += text_at(area_.left, 52, "", plot_.subtitle);
  }

  void axes() {
    for (const double tick : y_.ticks(6)) {
      out_ += line_from(area_.left, at_y(tick), area_.right, at_y(tick), "grid");
      out_ += text_at(area_.left - 10, at_y(tick) + 4.5, to_the_left, tick_label(tick));
    }
    for (const double tick : x_.ticks(8)) {
      out_ += line_from(at_x(tick), area_.bottom, at_x(tick), area_.bottom + 5, "axis");
      out_ += text_at(at_x(tick), area_.bottom + 21, middle, tick_label(tick));
    }
    out_ += line_from(area_.left, area_.bottom, area_.right, area_.bottom, "axis");
    out_ += text_at((area_.left + area_.right) / 2, area_.bottom + 44, middle, plot_.x.label);
    const std::string x = "20", y = number((area_.top + area_.bottom) / 2);
    out_ += "<text transform=\"translate(" + x + " " + y + ") rotate(-90)\" text-anchor=\"middle\">" +
            escaped(plot_.y.label) + "</text>\n";
  }

  /// Lines now, labels at the end above everything, moved apart where they would touch.
  void levels() {
    std::vector<PlotLevel> shown;
    for (const PlotLevel& level : plot_.levels)
      if (y_.shows(level.y)) shown.push_back(level);
    std::stable_sort(shown.begin(), shown.end(), [](const auto& a, const auto& b) { return a.y > b.y; });
    double lowest = area_.top - text_size;
    for (const PlotLevel& level : shown) {
      const double y = at_y(level.y);
      out_ += line_from(area_.left, y, area_.right, y, "level");
      lowest = std::max(y - 6, lowest + text_size + 3);
      notes_ += text_at(area_.right - 4, lowest, std::string("class=\"note\" ") + to_the_left, level.name);
      anything_ = true;
    }
  }

  /// Runs of points without gaps.
  std::vector<std::vector<Point>> runs_of(const PlotSeries& series) const {
    std::vector<std::vector<Point>> runs(1);
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      if (x_.shows(series.x[i]) && y_.shows(series.y[i])) {
        runs.back().push_back({at_x(series.x[i]), at_y(series.y[i])});
      } else if (!runs.back().empty()) {
        runs.emplace_back();
      }
    }
    if (runs.back().empty()) runs.pop_back();
    return runs;
  }

  /// Of the points that fall into one unit of width: the first, the highest, the lowest and the last.
  static std::vector<Point> visible(const std::vector<Point>& run) {
    std::vector<Point> kept;
    for (std::size_t begin = 0; begin < run.size();) {
      std::size_t end = begin, high = begin, low = begin;
      for (; end < run.size() && std::floor(run[end].x) == std::floor(run[begin].x); ++end) {
        if (run[end].y < run[high].y) high = end;
        if (run[end].y > run[low].y) low = end;
      }
      std::vector<std::size_t> chosen{begin, high, low, end - 1};
      std::sort(chosen.begin(), chosen.end());
      chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
      for (const std::size_t index : chosen) kept.push_back(run[index]);
      begin = end;
    }
    return kept;
  }

  void series(const PlotSeries& series, std::size_t colour) {
    const std::string kind =
        std::string(series.faint ? "line faint" : "line") + " c" + std::to_string(colour);
    const bool markers = !series.faint && series.x.size() <= points_with_markers;
    for (const std::vector<Point>& run : runs_of(series)) {
      anything_ = true;
      const std::vector<Point> points = visible(run);
      out_ += "<polyline class=\"" + kind + "\" points=\"";
      for (const Point& point : points) out_ += number(point.x) + "," + number(point.y) + " ";
      out_.back() = '"';
      out_ += "/>\n";
      for (const Point& point : points)
        if (markers || run.size() == 1)
          out_ += "<circle class=\"marker c" + std::to_string(colour) + "\" cx=\"" + number(point.x) +
                  "\" cy=\"" + number(point.y) + "\" r=\"3\"/>\n";
    }
  }

  /// Rows of names between the headings and the data.
  void legend() {
    const std::vector<LegendPlace> places = legend_of(plot_);
    for (const LegendPlace& place : places) {
      const PlotSeries& series = plot_.series[place.series];
      const double x = place.x, y = area_.top - 16 - legend_row * (places.back().row - place.row);
      const std::string kind =
          (series.faint ? "line faint c" : "line c") + std::to_string(place.series % colours);
      out_ += line_from(x, y - 4.5, x + 20, y - 4.5, kind);
      out_ += text_at(x + 27, y, "class=\"legend\"", series.name);
    }
  }

  const Plot& plot_;
  PlotArea area_;
  PlotScale x_, y_;
  bool anything_ = false;
  std::string out_, notes_;
};

}  // namespace

PlotArea area_of(const Plot& plot) {
  const std::vector<LegendPlace> legend = legend_of(plot);
  const double rows = legend.empty() ? 6 : 30 + legend_row * legend.back().row;
  const double top = 46 + (plot.subtitle.empty() ? 0 : 20) + rows;
  return {plot_left, top, plot.width - plot_right, plot.height - 62.0};
}

std::string svg_of(const Plot& plot) {
  return Painter(plot).paint();
}

Status write_svg(const Plot& plot, const std::string& path) {
  const std::string temporary = path + ".tmp";
  std::ofstream file(temporary, std::ios::binary);
  file << svg_of(plot);
  file.close();
  if (!file) return fail(ExitCode::storage, "cannot write the plot ", temporary);
  if (std::rename(temporary.c_str(), path.c_str()) != 0)
    return fail(ExitCode::storage, "cannot write the plot ", path);
  return {};
}

}  // namespace tessera
