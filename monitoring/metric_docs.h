// The page docs/metrics.md, written from the catalogue.
#pragma once
#include <string>

namespace tessera {

/// Markdown: every metric with type, labels and meaning. docs/metrics.md must equal it (tests/monitoring).
std::string metric_docs();

}  // namespace tessera
