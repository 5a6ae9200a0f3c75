#include "monitoring/svg_plot.h"

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>

#include "monitoring/plot_scale.h"
#include "tests/monitoring/well_formed.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing_monitoring::xml_problem;

/// Points of the polylines, in order of drawing; a gap starts a new one.
std::vector<std::vector<std::pair<double, double>>> polylines(const std::string& svg) {
  std::vector<std::vector<std::pair<double, double>>> found;
  const std::string key = " points=\"";
  for (std::size_t at = svg.find(key); at != std::string::npos; at = svg.find(key, at + 1)) {
    std::istringstream text(svg.substr(at + key.size(), svg.find('"', at + key.size()) - at - key.size()));
    found.emplace_back();
    char comma;
    for (double x, y; text >> x >> comma >> y;) found.back().emplace_back(x, y);
  }
  return found;
}

Plot plot_of(std::vector<double> x, std::vector<double> y) {
  Plot plot;
  plot.title = "loss <b> & \"more\"";
  plot.x.label = "rounds";
  plot.y.label = "nats";
  plot.series = {{"run", std::move(x), std::move(y)}};
  return plot;
}

TEST(SvgPlot, IsWellFormedWhateverTheNames) {
  Plot plot = plot_of({0, 1, 2}, {3, 2, 1});
  plot.subtitle = "a < b && c > \x01 d; Größe";
  plot.levels = {{"<unigram> & co", 2.5}, {"second", 2.5}};
  EXPECT_EQ(xml_problem(svg_of(plot)), "");
  EXPECT_THAT(svg_of(plot), HasSubstr("&lt;unigram&gt; &amp; co"));
  EXPECT_THAT(svg_of(plot), HasSubstr("prefers-color-scheme: dark"));
  EXPECT_EQ(xml_problem(svg_of(Plot{})), "");
  EXPECT_THAT(svg_of(Plot{}), HasSubstr("no data yet"));
}

TEST(SvgPlot, EverySeriesIsNamedInAsManyRowsAsThatTakes) {
  Plot plot;
  const double one_row = area_of(plot_of({0}, {0})).top;
  for (int i = 0; i < 8; ++i) plot.series.push_back({"a name of some length " + std::to_string(i), {0}, {0}});
  const std::string svg = svg_of(plot);
  for (const PlotSeries& series : plot.series) EXPECT_THAT(svg, HasSubstr(">" + series.name + "<"));
  EXPECT_GT(area_of(plot).top, one_row + 2 * 20 - 1) << "three rows at least, above the data";
}

TEST(SvgPlot, PointsMapLinearlyIntoTheArea) {
  const Plot plot = plot_of({10, 20, 40}, {0, 3, 6});
  const PlotArea area = area_of(plot);
  const auto lines = polylines(svg_of(plot));
  ASSERT_EQ(lines.size(), 1u);
  ASSERT_EQ(lines[0].size(), 3u);
  EXPECT_NEAR(lines[0][0].first, area.left, 0.01);
  EXPECT_NEAR(lines[0][0].second, area.bottom, 0.01);
  EXPECT_NEAR(lines[0][1].first, area.left + (area.right - area.left) / 3, 0.01);
  EXPECT_NEAR(lines[0][1].second, (area.top + area.bottom) / 2, 0.01);
  EXPECT_NEAR(lines[0][2].first, area.right, 0.01);
  EXPECT_NEAR(lines[0][2].second, area.top, 0.01);
}

TEST(SvgPlot, ALogarithmicAxisSpacesDecadesEvenlyAndLeavesOutWhatIsNotAboveZero) {
  Plot plot = plot_of({1, 10, 100, 1000, 0, 10000}, {5, 4, 3, 2, 1, 1});
  plot.x.logarithmic = true;
  const auto lines = polylines(svg_of(plot));
  ASSERT_EQ(lines.size(), 2u);
  ASSERT_EQ(lines[0].size(), 4u);
  const double decade = lines[0][1].first - lines[0][0].first;
  for (std::size_t i = 1; i < 4; ++i) EXPECT_NEAR(lines[0][i].first - lines[0][i - 1].first, decade, 0.02);
  EXPECT_NEAR(lines[1][0].first - lines[0][3].first, decade, 0.02);
}

TEST(SvgPlot, ValuesThatAreNoNumbersAreGaps) {
  const double nan = std::numeric_limits<double>::quiet_NaN(),
               infinite = std::numeric_limits<double>::infinity();
  const std::string svg = svg_of(plot_of({0, 1, 2, 3, 4, 5, 6}, {3, 2, nan, 2, 1, infinite, 1}));
  const auto lines = polylines(svg);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].size(), 2u);
  EXPECT_EQ(lines[1].size(), 2u);
  EXPECT_EQ(lines[2].size(), 1u);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

TEST(SvgPlot, ManyPointsAreThinnedOutButPeaksStay) {
  std::vector<double> x, y;
  for (int i = 0; i < 200000; ++i)
    x.push_back(i), y.push_back(std::sin(i * 0.001) + (i == 123456 ? 8.0 : 0.0));
  const Plot plot = plot_of(x, y);
  const std::string svg = svg_of(plot);
  EXPECT_LT(svg.size(), 60000u);
  double highest = 1e9, peak_x = 0;
  const auto lines = polylines(svg);
  for (const auto& [at_x, at_y] : lines.at(0))
    if (at_y < highest) highest = at_y, peak_x = at_x;
  const PlotArea area = area_of(plot);
  EXPECT_NEAR(peak_x, area.left + 123456.0 / 199999 * (area.right - area.left), 0.01);
}

TEST(SvgPlot, AFileAppearsWholeOrTheErrorNamesIt) {
  const std::string path = ::testing::TempDir() + "tessera_plot.svg";
  ASSERT_TRUE(write_svg(plot_of({0, 1}, {1, 2}), path).ok());
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  EXPECT_EQ(text, svg_of(plot_of({0, 1}, {1, 2})));
  std::filesystem::remove(path);
  const Status status = write_svg(plot_of({0, 1}, {1, 2}), "/nowhere/at/all.svg");
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("/nowhere/at/all.svg"));
}

TEST(PlotScale, TicksAreRoundNumbers) {
  EXPECT_THAT(PlotScale(0, 1, false).ticks(5), ElementsAre(0, 0.2, 0.4, 0.6, 0.8, 1));
  EXPECT_THAT(PlotScale(-3, 7, false).ticks(5), ElementsAre(-2, 0, 2, 4, 6));
  EXPECT_THAT(PlotScale(1.01, 1.0499, false).ticks(4), ElementsAre(1.01, 1.02, 1.03, 1.04));
  EXPECT_THAT(PlotScale(1, 1000, true).ticks(6), ElementsAre(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000));
  EXPECT_THAT(PlotScale(1e-8, 1, true).ticks(4), ElementsAre(1e-8, 1e-6, 1e-4, 1e-2, 1));
  EXPECT_THAT(PlotScale(2, 6, true).ticks(4), ElementsAre(2, 3, 4, 5, 6));
}

TEST(PlotScale, LabelsAreShort) {
  EXPECT_EQ(tick_label(0), "0");
  EXPECT_EQ(tick_label(0.30000000000000004), "0.3");
  EXPECT_EQ(tick_label(2500), "2500");
  EXPECT_EQ(tick_label(30000), "30 k");
  EXPECT_EQ(tick_label(2.5e6), "2.5 M");
  EXPECT_EQ(tick_label(-1e9), "-1 G");
  EXPECT_EQ(tick_label(1e-5), "1e-05");
}

TEST(PlotScale, FitsOneValueAndNone) {
  const std::vector<double> none, one{4};
  EXPECT_DOUBLE_EQ(PlotScale::fitting(one, false, true)(4), 0.5);
  EXPECT_DOUBLE_EQ(PlotScale::fitting(one, true, true)(4), 0.5);
  EXPECT_EQ(PlotScale::fitting(none, false, true).high(), 1);
}

}  // namespace
}  // namespace tessera
