#include "launch/simulate/paper_table.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <map>

#include "launch/simulate/simulate.h"

namespace tessera {
namespace {

constexpr int grid_points = 50;
constexpr double giga = 1e9;

Workload workload_of_row(const PaperRow& row, const PaperConstants& constants) {
  // The paper: bf16, H = 100, fragments of 3 layers, strided; one step of overlap; FP4 is a quarter of bf16.
  MethodShape shape;
  shape.method = row.method == "data parallel" ? "data_parallel"
                 : row.method == "DiLoCo"      ? "diloco"
                                               : "streaming";
  const bool overlapped = row.method.find("overlapped") != std::string::npos;
  const bool fp4 = row.method.find("FP4") != std::string::npos;
  shape.overlap = overlapped ? 1 : 0;
  shape.bytes_up = shape.bytes_down = constants.bits_per_parameter / 8 * (fp4 ? 0.25 : 1);
  // Two data centres: each sends half of the sum and half of the result, so P parameters pass each way.
  return with_workers(workload_of(layers_of(*parse_model_size(row.size)), shape), 2);
}

/// Utilisation grows with bandwidth, so the first point that reaches `target` is found by halving.
class UtilisationOnGrid {
 public:
  UtilisationOnGrid(const PaperRow& row, const PaperConstants& constants)
      : work_(workload_of_row(row, constants)) {}
  int first_that_reaches(double target) {
    int low = 0, high = grid_points;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (at(middle) >= target)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }

 private:
  double at(int point) {
    const auto found = known_.find(point);
    if (found != known_.end()) return found->second;
    const double bits = paper_bandwidths()[static_cast<std::size_t>(point)];
    const Cluster cluster{
        .flops_per_second = 1, .topology = Topology::ring, .up_bits = bits, .down_bits = bits};
    return known_[point] = simulate(work_, cluster).compute_utilisation();
  }
  Workload work_;
  std::map<int, double> known_;
};

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));
std::string format(const char* pattern, ...) {
  char text[256];
  std::va_list values;
  va_start(values, pattern);
  std::vsnprintf(text, sizeof text, pattern, values);
  va_end(values);
  return text;
}

/// Gbit/s of a point of the grid.
std::string figure(int point) {
  return point < grid_points ? format("%.1f", paper_bandwidths()[static_cast<std::size_t>(point)] / giga)
                             : ">1000";
}

}  // namespace

std::vector<double> paper_bandwidths() {
  std::vector<double> bandwidths;
  for (int i = 0; i < grid_points; ++i)
    bandwidths.push_back(giga * std::pow(10, -1 + 4.0 * i / (grid_points - 1)));
  return bandwidths;
}

const std::vector<PaperRow>& paper_rows() {
  static const std::vector<PaperRow> rows = {
      {"1B", "data parallel", {86.8, 152.6, 184.2, 222.3, 569.0}},
      {"1B", "DiLoCo", {1.4, 6.2, 13.3, 23.3, 86.8}},
      {"1B", "streaming", {1.4, 5.2, 9.1, 16.0, 28.1}},
      {"1B", "streaming, overlapped", {1.4, 4.3, 6.2, 9.1, 11.0}},
      {"1B", "streaming, overlapped, FP4", {0.4, 0.9, 1.7, 2.0, 3.0}},
      {"10B", "data parallel", {104.8, 222.3, 222.3, 268.3, 471.5}},
      {"10B", "DiLoCo", {1.7, 7.5, 16.0, 33.9, 104.8}},
      {"10B", "streaming", {1.7, 5.2, 9.1, 13.3, 19.3}},
      {"10B", "streaming, overlapped", {1.7, 3.6, 5.2, 6.2, 7.5}},
      {"10B", "streaming, overlapped, FP4", {0.4, 0.9, 1.4, 1.4, 1.7}},
      {"100B", "data parallel", {184.2, 323.8, 390.7, 390.7, 471.5}},
      {"100B", "DiLoCo", {3.0, 11.0, 23.3, 49.4, 184.2}},
      {"100B", "streaming", {2.4, 6.2, 9.1, 11.0, 19.3}},
      {"100B", "streaming, overlapped", {1.7, 3.6, 4.3, 5.2, 5.2}},
      {"100B", "streaming, overlapped, FP4", {0.5, 0.9, 1.1, 1.1, 1.4}},
  };
  return rows;
}

int paper_point(double gbits) {
  const std::vector<double> grid = paper_bandwidths();
  int best = 0;
  for (int i = 1; i < grid_points; ++i) {
    const auto far = [&](int point) {
      return std::abs(std::log(grid[static_cast<std::size_t>(point)] / (gbits * giga)));
    };
    if (far(i) < far(best)) best = i;
  }
  return best;
}

std::vector<std::array<PaperCell, 5>> simulate_paper_table(const PaperConstants& constants) {
  std::vector<std::array<PaperCell, 5>> cells;
  for (const PaperRow& row : paper_rows()) {
    UtilisationOnGrid utilisation(row, constants);
    std::array<PaperCell, 5>& line = cells.emplace_back();
    for (std::size_t i = 0; i < line.size(); ++i)
      line[i] = {paper_point(row.published[i]), utilisation.first_that_reaches(paper_utilisations[i])};
  }
  return cells;
}

PaperAgreement agreement(const std::vector<std::array<PaperCell, 5>>& cells, const std::string& size) {
  PaperAgreement sum;
  for (std::size_t row = 0; row < cells.size(); ++row) {
    if (!size.empty() && paper_rows()[row].size != size) continue;
    for (const PaperCell& cell : cells[row]) {
      ++sum.cells;
      sum.same += cell.distance() == 0;
      sum.near += cell.near();
    }
  }
  return sum;
}

std::string paper_table_text(const std::vector<std::array<PaperCell, 5>>& cells) {
  std::string text =
      "Gbit/s for a compute utilisation, Streaming DiLoCo (arXiv 2501.18512), table 4: published > "
      "simulated,\n"
      "and how many points of the paper's grid (ratio 1.207) lie between them.\n\n";
  text += format("%-5s %-27s", "size", "method");
  for (const double utilisation : paper_utilisations) text += format("%19.0f%%", 100 * utilisation);
  text += "\n";
  for (std::size_t row = 0; row < cells.size(); ++row) {
    const PaperRow& published = paper_rows()[row];
    text += format("%-5s %-27s", published.size.c_str(), published.method.c_str());
    for (std::size_t i = 0; i < cells[row].size(); ++i) {
      text += format("%8.1f > %-6s%+3d", published.published[i], figure(cells[row][i].simulated).c_str(),
                     cells[row][i].distance());
    }
    text += "\n";
  }
  text += "\n";
  for (const auto& [size, how] :
       {std::pair{"1B", "chosen on"}, {"10B", "predicted"}, {"100B", "predicted"}, {"", "all"}}) {
    const PaperAgreement sum = agreement(cells, size);
    text += format("%-5s %-10s %2d of %2d cells on the same point, %2d (%.0f%%) on the same or a neighbour\n",
                   size, how, sum.same, sum.cells, sum.near, 100 * sum.share());
  }
  return text;
}

std::string paper_table_csv(const std::vector<std::array<PaperCell, 5>>& cells) {
  std::string text = "size,method,utilisation,published_gbits,simulated_gbits,grid_distance\n";
  for (std::size_t row = 0; row < cells.size(); ++row) {
    const PaperRow& published = paper_rows()[row];
    for (std::size_t i = 0; i < cells[row].size(); ++i) {
      text += format("%s,\"%s\",%.2f,%.1f,%s,%d\n", published.size.c_str(), published.method.c_str(),
                     paper_utilisations[i], published.published[i],
                     cells[row][i].simulated < grid_points ? figure(cells[row][i].simulated).c_str() : "",
                     cells[row][i].distance());
    }
  }
  return text;
}

}  // namespace tessera
