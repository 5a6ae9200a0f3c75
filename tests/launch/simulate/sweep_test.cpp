#include "launch/simulate/sweep.h"

#include <gmock/gmock.h>

#include <sstream>

#include "base/text.h"
#include "tests/monitoring/well_formed.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

std::vector<Subject> two_subjects() {
  std::vector<Subject> subjects;
  for (const char* method : {"diloco", "data_parallel"}) {
    Subject subject{"1B", method, "up, \"quoted\"", {}, 1, 1000};
    subject.work = with_workers(workload_of(layers_of(*parse_model_size("1B")), {.method = method}), 2);
    subjects.push_back(std::move(subject));
  }
  subjects.back().total_steps = 0;
  return subjects;
}

/// Fields of a line of CSV.
std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && quoted && line[i + 1] == '"')
      fields.back() += line[++i];
    else if (line[i] == '"')
      quoted = !quoted;
    else if (line[i] == ',' && !quoted)
      fields.emplace_back();
    else
      fields.back() += line[i];
  }
  return fields;
}

TEST(Sweep, GivesEveryCombinationAsCsv) {
  const std::vector<Subject> subjects = two_subjects();
  const Axes axes{.bandwidths = {1e9, 1e10, 0}, .latencies = {0, 0.1}, .workers = {2, 64}};
  const std::vector<SweepRow> rows = sweep(subjects, axes, {.server_bits = 1e11});
  ASSERT_EQ(rows.size(), 2u * 3 * 2 * 2);
  std::istringstream csv(sweep_csv(subjects, rows));
  std::string line;
  std::getline(csv, line);
  const std::vector<std::string> head = fields_of(line);
  for (const SweepRow& row : rows) {
    ASSERT_TRUE(std::getline(csv, line));
    const std::vector<std::string> fields = fields_of(line);
    ASSERT_EQ(fields.size(), head.size());
    EXPECT_EQ(fields[1], subjects[row.subject].method);
    EXPECT_EQ(fields[2], "up, \"quoted\"");
    EXPECT_EQ(std::stod(fields[3]), row.workers);
    EXPECT_EQ(std::stod(fields[4]), row.latency);
    EXPECT_EQ(std::stod(fields[5]), row.bandwidth);
    EXPECT_EQ(std::stod(fields[6]), row.outcome.compute_utilisation());
    if (row.subject == 0)
      EXPECT_DOUBLE_EQ(std::stod(fields.back()), 1000 * row.outcome.seconds / row.outcome.steps);
    else
      EXPECT_EQ(fields.back(), "");
  }
  EXPECT_FALSE(std::getline(csv, line));
}

TEST(Sweep, TheTableHasABlockPerClusterAndALinePerBandwidth) {
  const std::vector<Subject> subjects = two_subjects();
  const Axes axes{.bandwidths = {1e9, 1e10}, .workers = {2, 64}};
  const std::string table = sweep_table(subjects, sweep(subjects, axes, {}));
  EXPECT_THAT(table, HasSubstr("1B, 64 workers, latency 0 ms: compute utilisation and time of the run\n"));
  EXPECT_THAT(table, HasSubstr("\n     1Gbit/s       "));
  EXPECT_THAT(table, HasSubstr("\n    10Gbit/s       "));
}

TEST(Sweep, ThePictureIsWellFormedAndHasASeriesPerMethod) {
  const std::vector<Subject> subjects = two_subjects();
  Axes axes{.bandwidths = {1e9, 1e10, 1e11}, .workers = {2, 64}};
  Plot plot = sweep_plot(subjects, sweep(subjects, axes, {}), axes);
  ASSERT_EQ(plot.series.size(), 4u);
  EXPECT_THAT(plot.series[1].name, HasSubstr("64 workers"));
  EXPECT_EQ(plot.series[1].x, axes.bandwidths);
  EXPECT_EQ(testing_monitoring::xml_problem(svg_of(plot)), "");
  axes.bandwidths = {1e9};
  plot = sweep_plot(subjects, sweep(subjects, axes, {}), axes);
  ASSERT_EQ(plot.series.size(), 2u);
  EXPECT_EQ(plot.series[0].x, axes.workers);
}

}  // namespace
}  // namespace tessera
