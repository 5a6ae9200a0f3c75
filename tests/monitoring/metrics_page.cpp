// What promtool is fed, and the way docs/metrics.md is renewed: metrics_page docs | text | served.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iostream>
#include <string>

#include "monitoring/exporter.h"
#include "monitoring/metric_docs.h"
#include "monitoring/metrics.h"

namespace {

void fill(tessera::Metrics& metrics) {
  metrics.add(tessera::metric::rounds_committed, 3);
  metrics.set(tessera::metric::loss, 2.5);
  metrics.add(tessera::metric::wire_bytes, 1e12, "bulk_in");
  for (const double seconds : {0.0004, 0.3, 7.0, 5000.0}) {
    metrics.observe(tessera::metric::phase_seconds, seconds, "compute");
  }
}

// The body of the page, by a plain HTTP/1.0 request.
std::string get(int port) {
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    if (write(connection, request.data(), request.size()) > 0) {
      char part[4096];
      for (ssize_t got; (got = read(connection, part, sizeof part)) > 0;)
        answer.append(part, static_cast<std::size_t>(got));
    }
  }
  close(connection);
  const std::size_t body = answer.find("\r\n\r\n");
  return body == std::string::npos ? "" : answer.substr(body + 4);
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
    const std::string page = get((*exporter)->port());
    if (page.empty()) return std::cerr << "nothing was served at " << (*exporter)->url() << '\n', 1;
    std::cout << page;
  } else {
    std::cerr << "usage: metrics_page docs | text | served\n";
    return 2;
  }
}
