// Metrics: bounded labels, counters that never fall, the text page, and docs/metrics.md.
#include "monitoring/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "comm/drop_reasons.h"
#include "monitoring/exporter.h"
#include "monitoring/metric_docs.h"
#include "tests/monitoring/page.h"

namespace tessera {
namespace {

using testing::HasSubstr;

TEST(MetricCatalogue, NamesAreUniqueAndFollowTheConventions) {
  std::set<std::string> names;
  for (const MetricInfo* info : metric::catalogue()) {
    SCOPED_TRACE(info->name);
    EXPECT_TRUE(names.insert(info->name).second);
    EXPECT_EQ(info->name.rfind("tessera_", 0), 0u);
    EXPECT_EQ(info->name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string::npos);
    const bool total = info->name.size() > 6 && info->name.compare(info->name.size() - 6, 6, "_total") == 0;
    EXPECT_EQ(total, info->type == MetricInfo::Type::counter);
    EXPECT_EQ(info->help.back(), '.');
    EXPECT_EQ(info->label.empty(), info->label_values.empty());
    EXPECT_LE(info->label_values.size(), 24u) << "labels are bounded and few";
  }
}

TEST(MetricCatalogue, EveryReasonWhyTransportsDropFramesHasItsSeries) {
  const auto& known = metric::dropped_messages.label_values;
  for (const char* reason : drop::all) EXPECT_THAT(known, testing::Contains(reason));
}

TEST(MetricDocs, PageInDocsIsTheGeneratedOne) {
  std::ifstream file(TESSERA_SOURCE_DIR "/docs/metrics.md");
  std::stringstream page;
  page << file.rdbuf();
  EXPECT_EQ(page.str(), metric_docs()) << "run: metrics_page docs > docs/metrics.md";
}

TEST(Metrics, EverySeriesExistsAtZeroFromTheStart) {
  const Metrics metrics;
  std::size_t families = 0;
  for (const auto& [info, series] : metrics.samples()) {
    ++families;
    SCOPED_TRACE(info->name);
    if (info == &metric::build_info) continue;
    EXPECT_EQ(series.size(), info->label.empty() ? 1 : info->label_values.size() + 1);
    for (const MetricSample& sample : series) {
      EXPECT_EQ(sample.value, 0);
      EXPECT_EQ(sample.count, 0u);
    }
  }
  EXPECT_EQ(families, metric::catalogue().size());
  EXPECT_EQ(metrics.value(metric::build_info, metric::build_info.label_values.front()), 1);
}

TEST(Metrics, UnknownLabelsAreCountedAsOther) {
  Metrics metrics;
  metrics.add(metric::rejected_contributions, 1, "contribution");
  for (int i = 0; i < 100; ++i)
    metrics.add(metric::rejected_contributions, 1, "made up " + std::to_string(i));
  EXPECT_EQ(metrics.value(metric::rejected_contributions, "contribution"), 1);
  EXPECT_EQ(metrics.value(metric::rejected_contributions, "other"), 100);
  EXPECT_THAT(metrics.text(), HasSubstr("tessera_rejected_contributions_total{reason=\"other\"} 100\n"));
  EXPECT_THAT(metrics.text(), testing::Not(HasSubstr("made up")));
}

TEST(Metrics, CountersNeverFall) {
  Metrics metrics;
  metrics.add(metric::units, 5);
  for (const double odd : {-3.0, std::nan(""), -double{INFINITY}, double{INFINITY}}) {
    metrics.add(metric::units, odd);
    metrics.set(metric::units, odd);
    EXPECT_EQ(metrics.value(metric::units), 5);
  }
  metrics.set(metric::units, 4);
  EXPECT_EQ(metrics.value(metric::units), 5);
  metrics.set(metric::units, 9);
  EXPECT_EQ(metrics.value(metric::units), 9);
}

TEST(Metrics, GaugesTakeAnyValueAndPrintItAsPrometheusDoes) {
  Metrics metrics;
  metrics.set(metric::loss, std::nan(""));
  metrics.set(metric::eval_loss, -INFINITY);
  EXPECT_THAT(metrics.text(), HasSubstr("\ntessera_loss NaN\n"));
  EXPECT_THAT(metrics.text(), HasSubstr("\ntessera_eval_loss -Inf\n"));
}

TEST(Metrics, HistogramBucketsAreCumulativeAndBoundsInclusive) {
  Metrics metrics;
  for (const double seconds : {0.001, 0.0011, 2.5, 1e6, -1.0}) metrics.observe(metric::step_seconds, seconds);
  const std::string text = metrics.text();
  for (const char* line :
       {"_bucket{le=\"0.001\"} 1\n", "_bucket{le=\"0.0025\"} 2\n", "_bucket{le=\"1\"} 2\n",
        "_bucket{le=\"2.5\"} 3\n", "_bucket{le=\"1000\"} 3\n", "_bucket{le=\"+Inf\"} 4\n", "_count 4\n"}) {
    EXPECT_THAT(text, HasSubstr(std::string("tessera_step_seconds") + line));
  }
  EXPECT_DOUBLE_EQ(metrics.value(metric::step_seconds), 0.001 + 0.0011 + 2.5 + 1e6);
}

TEST(Metrics, ManyThreadsLoseNoCount) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&metrics] {
      for (int i = 0; i < 2000; ++i) {
        metrics.add(metric::wire_bytes, 1, "bulk_in");
        metrics.observe(metric::phase_seconds, 0.1, "compute");
        if (i % 200 == 0) (void)metrics.text();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(metrics.value(metric::wire_bytes, "bulk_in"), 8000);
}

TEST(MetricsDeathTest, MisuseIsABugThatNamesTheMetric) {
  Metrics metrics;
  EXPECT_DEATH(metrics.add(metric::step_seconds, 1), "tessera_step_seconds");
  EXPECT_DEATH(metrics.observe(metric::loss, 1), "tessera_loss");
  EXPECT_DEATH(metrics.add(metric::units, 1, "label"), "tessera_units_total has no label");
}

// The samples of a page, "name{labels}" to value, the server's own left out.
std::map<std::string, double> samples_of(const std::string& page) {
  std::map<std::string, double> samples;
  std::istringstream in(page);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("tessera_", 0) != 0) continue;
    const std::size_t space = line.rfind(' ');
    samples[line.substr(0, space)] = std::stod(line.substr(space + 1));
  }
  return samples;
}

TEST(Exporter, ThePageAsServedSaysWhatTheTextSays) {
  Metrics metrics;
  metrics.add(metric::units, 12345678901.0);
  metrics.set(metric::loss, 2.25);
  metrics.add(metric::wire_bytes, 3, "bulk_in");
  for (const double seconds : {0.0004, 0.3, 5000.0})
    metrics.observe(metric::phase_seconds, seconds, "compute");
  const auto exporter = Exporter::open(metrics);
  ASSERT_TRUE(exporter.ok());
  const auto served = samples_of(test::get_page((*exporter)->port()));
  EXPECT_EQ(served, samples_of(metrics.text()));
  EXPECT_EQ(served.at("tessera_units_total"), 12345678901.0);
  EXPECT_EQ(served.at("tessera_round_phase_seconds_bucket{phase=\"compute\",le=\"0.5\"}"), 2);
}

TEST(Exporter, ATakenPortIsAnErrorThatNamesIt) {
  Metrics metrics;
  const auto first = Exporter::open(metrics);
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_GT((*first)->port(), 0);
  EXPECT_EQ((*first)->url(), "http://127.0.0.1:" + std::to_string((*first)->port()) + "/metrics");
  const auto second = Exporter::open(metrics, (*first)->port());
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, HasSubstr("127.0.0.1:" + std::to_string((*first)->port())));
}

TEST(Exporter, ManyPagesLiveInOneProcessAndFreeTheirPorts) {
  Metrics a, b;
  int port = 0;
  {
    const auto first = Exporter::open(a);
    const auto second = Exporter::open(b);
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_NE((*first)->port(), (*second)->port());
    port = (*first)->port();
  }
  const auto again = Exporter::open(a, port);
  EXPECT_TRUE(again.ok()) << again.error().message;
}

}  // namespace
}  // namespace tessera
