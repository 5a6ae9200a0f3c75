#include "monitoring/metric_docs.h"

#include <sstream>
#include <vector>

#include "base/text.h"
#include "monitoring/metrics.h"

namespace tessera {
namespace {

std::string type_in_words(const MetricInfo& info) {
  switch (info.type) {
    case MetricInfo::Type::counter:
      return "counter";
    case MetricInfo::Type::gauge:
      return "gauge";
    case MetricInfo::Type::histogram:
      return "histogram";
  }
  return "";
}

std::string label_in_words(const MetricInfo& info) {
  if (info.label.empty()) return "";
  if (&info == &metric::build_info) return "`version`: of the build";
  return "`" + info.label + "`: " + join(info.label_values, ", ") + ", other";
}

}  // namespace

std::string metric_docs() {
  std::ostringstream out;
  out << "# Metrics\n\n"
         "Generated from `monitoring/metric_catalogue.cpp`; to renew it after a change there, build "
         "`metrics_page` and run "
         "`metrics_page docs > docs/metrics.md`.\n\n"
         "Every coordinator serves these on a Prometheus page (loopback; the address is in "
         "`endpoints.json`). All series "
         "exist from the start at 0. Labels are bounded: a value that is not listed is counted under "
         "`other`. Counters never "
         "fall while a process lives; a restart begins at 0 again, as Prometheus expects. All histograms "
         "share these bounds, in seconds: ";
  std::vector<std::string> bounds;
  for (const double bound : metric::bucket_bounds()) bounds.push_back(format_double(bound));
  out << join(bounds, ", ") << ".\n\n| metric | type | label | meaning |\n|---|---|---|---|\n";
  for (const MetricInfo* info : metric::catalogue()) {
    out << "| `" << info->name << "` | " << type_in_words(*info) << " | " << label_in_words(*info) << " | "
        << info->help << " |\n";
  }
  return out.str();
}

}  // namespace tessera
