#include "launch/reproduce/plots.h"

#include <functional>

#include "base/text.h"
#include "comm/storage/files.h"
#include "monitoring/svg_plot.h"

namespace tessera {
namespace {

struct Axis {
  std::string name, label;
  bool logarithmic = false;
  std::function<double(const ArmRuns&, const CurvePoint&)> x;
};

std::vector<Axis> axes(bool all) {
  std::vector<Axis> axes{
      {"tokens", "tokens", false, [](const ArmRuns&, const CurvePoint& point) { return point.tokens; }},
      {"flops", "floating-point operations, computed", false,
       [](const ArmRuns&, const CurvePoint& point) { return point.flops; }}};
  if (!all) return axes;
  axes.push_back({"bytes", "bytes up and down of all slots, computed", true,
                  [](const ArmRuns&, const CurvePoint& point) { return point.bytes; }});
  for (const double mbits : predicted_links) {
    const std::string link = format_double(mbits);
    axes.push_back({link + "mbit", "seconds with a link of " + link + " Mbit/s, predicted", true,
                    [mbits](const ArmRuns& runs, const CurvePoint& point) {
                      return static_cast<double>(point.round) * runs.round_seconds(mbits);
                    }});
  }
  return axes;
}

}  // namespace

Result<std::vector<std::string>> draw_plots(const ExperimentSpec& spec, const CoverSpec& cover,
                                            const std::vector<ArmRuns>& runs, bool all_axes,
                                            const std::string& folder) {
  std::vector<std::string> files;
  for (const PlotSpec& wanted : spec.plots) {
    std::vector<const ArmRuns*> arms;
    for (const std::string& name : wanted.arms) {
      if (const ArmRuns* found = find_runs(runs, name)) arms.push_back(found);
    }
    if (arms.size() < 2) continue;
    for (const Axis& axis : axes(all_axes)) {
      Plot plot{.title = wanted.title,
                .subtitle = spec.size(cover.size)->label + ", " + spec.corpus(cover.corpus)->label +
                            "; mean over seeds",
                .x = {.label = axis.label, .logarithmic = axis.logarithmic},
                .y = {.label = "held-out loss (nats per token)"},
                .series = {},
                .levels = {}};
      for (const ArmRuns* arm : arms) {
        PlotSeries series{.name = arm->arm->label, .x = {}, .y = {}};
        for (const CurvePoint& point : arm->mean_curve()) {
          series.x.push_back(axis.x(*arm, point));
          series.y.push_back(point.eval_loss);
        }
        plot.series.push_back(std::move(series));
      }
      files.push_back(cover.name + "-" + wanted.name + "-" + axis.name + ".svg");
      TESSERA_TRY(make_folder(folder));
      TESSERA_TRY(write_svg(plot, folder + "/" + files.back()));
    }
  }
  return files;
}

}  // namespace tessera
