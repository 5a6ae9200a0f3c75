// Goal: the utilisation table of Streaming DiLoCo, at least 90 % of the cells on the same or a neighbouring
// point of its grid, with one constant chosen on the rows of 1B alone.
#include "launch/simulate/paper_table.h"

#include <gmock/gmock.h>

#include <cmath>

namespace tessera {
namespace {

TEST(PaperTable, PublishedFiguresLieOnTheGrid) {
  const std::vector<double> grid = paper_bandwidths();
  EXPECT_NEAR(grid[1] / grid[0], 1.207, 0.0005);
  for (const PaperRow& row : paper_rows()) {
    for (const double gbits : row.published) {
      const double point = grid[static_cast<std::size_t>(paper_point(gbits))] / 1e9;
      EXPECT_NEAR(gbits, point, std::max(0.055, 0.0005 * point)) << row.size << " " << row.method;
    }
  }
}

TEST(PaperTable, IsReproduced) {
  const auto cells = simulate_paper_table();
  EXPECT_EQ(agreement(cells, "").cells, 75);
  for (const char* size : {"1B", "10B", "100B"})
    EXPECT_GE(agreement(cells, size).share(), 0.9) << size << "\n" << paper_table_text(cells);
}

TEST(PaperTable, TheConstantIsABestOneForTheRowsOf1B) {
  const PaperAgreement chosen = agreement(simulate_paper_table(), "1B");
  for (double bits = 12; bits <= 16.01; bits += 0.2) {
    const PaperAgreement other = agreement(simulate_paper_table({.bits_per_parameter = bits}), "1B");
    EXPECT_LE(other.near, chosen.near) << bits;
    EXPECT_LE(other.same, chosen.same) << bits;
  }
}

TEST(PaperTable, PrintsEveryCell) {
  const auto cells = simulate_paper_table();
  const std::string csv = paper_table_csv(cells);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 76);
  EXPECT_THAT(csv, ::testing::HasSubstr("100B,\"streaming, overlapped, FP4\",0.99,1.4,"));
  EXPECT_THAT(paper_table_text(cells), ::testing::HasSubstr("predicted"));
}

}  // namespace
}  // namespace tessera
