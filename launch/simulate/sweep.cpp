#include "launch/simulate/sweep.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "base/text.h"
#include "launch/simulate/axis.h"

namespace tessera {
namespace {

/// "streaming, fp4"
std::string name_of(const Subject& subject) {
  return subject.codec.empty() ? subject.method : subject.method + ", " + subject.codec;
}

std::string bandwidth_text(double bits) {
  return bits > 0 ? quantity_text(bits) + "bit/s" : "unlimited";
}

std::string latency_text(double seconds) {
  return format_double(seconds * 1e3) + " ms";
}

/// A time in few characters: "0.45 s", "3.2 h".
std::string short_time(double seconds) {
  char text[32];
  for (const auto& [unit, name] : {std::pair{86400.0, "d"}, {3600.0, "h"}, {60.0, "min"}, {1.0, "s"}}) {
    if (seconds < unit) continue;
    std::snprintf(text, sizeof text, "%.3g %s", seconds / unit, name);
    return text;
  }
  std::snprintf(text, sizeof text, "%.3g ms", seconds * 1e3);
  return text;
}

/// Text for a CSV field.
std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string field = "\"";
  for (const char c : text) field += c == '"' ? std::string("\"\"") : std::string(1, c);
  return field + "\"";
}

std::string padded(std::string text, std::size_t width) {
  text.insert(0, text.size() < width ? width - text.size() : 0, ' ');
  return text;
}

}  // namespace

std::vector<SweepRow> sweep(const std::vector<Subject>& subjects, const Axes& axes, const Cluster& cluster) {
  std::vector<SweepRow> rows;
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    const std::vector<double> own = {subjects[i].work.workers()};
    for (const double workers : axes.workers.empty() ? own : axes.workers) {
      const Workload work = with_workers(subjects[i].work, workers, axes.speeds);
      for (const double latency : axes.latencies) {
        for (const double bandwidth : axes.bandwidths) {
          Cluster here = cluster;
          here.flops_per_second = subjects[i].flops_per_second;
          here.latency_seconds = latency;
          here.up_bits = here.down_bits = bandwidth;
          rows.push_back({i, workers, latency, bandwidth, simulate(work, here)});
        }
      }
    }
  }
  return rows;
}

std::string sweep_csv(const std::vector<Subject>& subjects, const std::vector<SweepRow>& rows) {
  std::string text =
      "model,method,codec,workers,latency_seconds,bandwidth_bits,compute_utilisation,step_seconds,"
      "compute_seconds_per_step,steps_per_period,bytes_up_per_period,bytes_down_per_period,run_seconds\n";
  for (const SweepRow& row : rows) {
    const Subject& subject = subjects[row.subject];
    const Outcome& o = row.outcome;
    text += join({quoted(subject.model), quoted(subject.method), quoted(subject.codec)}, ",");
    for (const double value :
         {row.workers, row.latency, row.bandwidth, o.compute_utilisation(), o.step_seconds(),
          o.compute_seconds / o.steps, o.steps, o.bytes_up, o.bytes_down})
      text += "," + format_double(value);
    text += ",";
    if (subject.total_steps > 0) text += format_double(subject.total_steps * o.step_seconds());
    text += "\n";
  }
  return text;
}

std::string sweep_table(const std::vector<Subject>& subjects, const std::vector<SweepRow>& rows) {
  // Blocks and columns in the order in which they come.
  struct Block {
    std::string title;
    std::vector<std::string> columns;
    std::map<double, std::map<std::string, std::string>> cells;  // by bandwidth, then by column
  };
  std::vector<Block> blocks;
  for (const SweepRow& row : rows) {
    const Subject& subject = subjects[row.subject];
    const std::string title = subject.model + ", " + quantity_text(row.workers) + " workers, latency " +
                              latency_text(row.latency) + ": compute utilisation and time of " +
                              (subject.total_steps > 0 ? "the run" : "a step");
    auto block = std::find_if(blocks.begin(), blocks.end(), [&](const Block& b) { return b.title == title; });
    if (block == blocks.end()) block = blocks.insert(blocks.end(), Block{title, {}, {}});
    const std::string column = name_of(subject);
    if (std::find(block->columns.begin(), block->columns.end(), column) == block->columns.end())
      block->columns.push_back(column);
    char share[16];
    std::snprintf(share, sizeof share, "%.1f%%", 100 * row.outcome.compute_utilisation());
    const double steps = subject.total_steps > 0 ? subject.total_steps : 1;
    block->cells[row.bandwidth][column] =
        padded(share, 7) + padded(short_time(steps * row.outcome.step_seconds()), 10);
  }
  std::string text;
  for (const Block& block : blocks) {
    text += (text.empty() ? "" : "\n") + block.title + "\n" + padded("bandwidth", 12);
    std::vector<std::size_t> widths;
    for (const std::string& column : block.columns) {
      widths.push_back(std::max<std::size_t>(column.size() + 2, 19));
      text += padded(column, widths.back());
    }
    text += "\n";
    for (const auto& [bandwidth, cells] : block.cells) {
      text += padded(bandwidth_text(bandwidth), 12);
      for (std::size_t i = 0; i < block.columns.size(); ++i)
        text += padded(cells.at(block.columns[i]), widths[i]);
      text += "\n";
    }
  }
  return text;
}

Plot sweep_plot(const std::vector<Subject>& subjects, const std::vector<SweepRow>& rows, const Axes& axes) {
  const bool over_bandwidth =
      axes.bandwidths.size() > 1 || (axes.workers.size() < 2 && axes.latencies.size() < 2);
  const bool over_workers = !over_bandwidth && axes.workers.size() > 1;
  Plot plot;
  plot.title = "Compute utilisation";
  plot.y = {"compute utilisation (%)", false};
  plot.x = over_bandwidth ? PlotAxis{"bandwidth of a worker's link (bit/s)", true}
           : over_workers ? PlotAxis{"workers", true}
                          : PlotAxis{"latency (s)", false};
  bool several_models = false;
  for (const Subject& subject : subjects) several_models |= subject.model != subjects.front().model;
  if (!several_models && !subjects.empty()) plot.subtitle = subjects.front().model;
  for (const SweepRow& row : rows) {
    const Subject& subject = subjects[row.subject];
    std::string name = (several_models ? subject.model + ", " : "") + name_of(subject);
    if (!over_workers && axes.workers.size() > 1) name += ", " + quantity_text(row.workers) + " workers";
    if ((over_bandwidth || over_workers) && axes.latencies.size() > 1)
      name += ", " + latency_text(row.latency);
    auto series = std::find_if(plot.series.begin(), plot.series.end(),
                               [&](const PlotSeries& s) { return s.name == name; });
    if (series == plot.series.end()) series = plot.series.insert(plot.series.end(), {name, {}, {}, false});
    series->x.push_back(over_bandwidth ? row.bandwidth : over_workers ? row.workers : row.latency);
    series->y.push_back(100 * row.outcome.compute_utilisation());
  }
  return plot;
}

}  // namespace tessera
