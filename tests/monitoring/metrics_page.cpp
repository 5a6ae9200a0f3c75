// What promtool is fed, and the way docs/metrics.md is renewed: metrics_page docs | text | served.

#include <iostream>
#include <string>

#include "monitoring/exporter.h"
#include "monitoring/metric_docs.h"
#include "monitoring/metrics.h"
#include "tests/monitoring/page.h"

namespace {

void fill(tessera::Metrics& metrics) {
  metrics.add(tessera::metric::rounds_committed, 3);
  metrics.set(tessera::metric::loss, 2.5);
  metrics.add(tessera::metric::wire_bytes, 1e12, "bulk_in");
  for (const double seconds : {0.0004, 0.3, 7.0, 5000.0}) {
    metrics.observe(tessera::metric::phase_seconds, seconds, "compute");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  tessera::Metrics metrics;
  fill(metrics);
  if (what == "docs") {
    std::cout << tessera::metric_docs();
  } else if (what == "text") {
    std::cout << metrics.text();
  } else if (what == "served") {
    const auto exporter = tessera::Exporter::open(metrics);
    if (!exporter.ok()) return std::cerr << exporter.error().message << '\n', 1;
    const std::string page = tessera::test::get_page((*exporter)->port());
    if (page.empty()) return std::cerr << "nothing was served at " << (*exporter)->url() << '\n', 1;
    std::cout << page;
  } else {
    std::cerr << "usage: metrics_page docs | text | served\n";
    return 2;
  }
}
