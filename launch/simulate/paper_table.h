// Table 4 of Streaming DiLoCo (arXiv 2501.18512): the bandwidth that a method needs for a compute
// utilisation, as the paper's own simulation gives it, beside ours.
#pragma once
#include <array>
#include <string>
#include <vector>

namespace tessera {

/// The paper's bandwidths lie on 50 points from 0.1 to 1000 Gbit/s with equal ratios, 1.207. Bit/s.
std::vector<double> paper_bandwidths();
inline constexpr std::array<double, 5> paper_utilisations = {0.5, 0.8, 0.9, 0.95, 0.99};

struct PaperRow {
  std::string size, method;         ///< "10B", "streaming, overlapped, FP4"
  std::array<double, 5> published;  ///< Gbit/s, as printed
};
const std::vector<PaperRow>& paper_rows();

/// What the paper does not say. Chosen on the rows of 1B alone, where 13.5 to 13.7 gives the most cells on
/// the same grid point; the others are predicted with it.
struct PaperConstants {
  /// On the wire per parameter of the name ("1B"), bf16. Less than 16: what is sent is 0.85 of it.
  double bits_per_parameter = 13.6;
};

struct PaperCell {
  int published = 0, simulated = 0;  ///< points of paper_bandwidths(); its size: never reached
  int distance() const { return simulated - published; }
  bool near() const { return distance() >= -1 && distance() <= 1; }
};
/// Five cells per row of paper_rows(): the first bandwidth with at least that utilisation.
std::vector<std::array<PaperCell, 5>> simulate_paper_table(const PaperConstants& constants = {});
/// The point of the grid that a printed figure means: the nearest one by ratio.
int paper_point(double gbits);

/// Cells on the same or a neighbouring point of the grid.
struct PaperAgreement {
  int cells = 0, same = 0, near = 0;
  double share() const { return static_cast<double>(near) / cells; }
};
/// Over rows of the size, or of all sizes ("").
PaperAgreement agreement(const std::vector<std::array<PaperCell, 5>>& cells, const std::string& size);

/// The table for people: published and simulated figure and distance of every cell, then the summary.
std::string paper_table_text(const std::vector<std::array<PaperCell, 5>>& cells);
std::string paper_table_csv(const std::vector<std::array<PaperCell, 5>>& cells);

}  // namespace tessera
