// The Prometheus page of a process: GET /metrics on loopback, served by prometheus-cpp from a Metrics object.
#pragma once
#include <memory>
#include <string>

#include "base/error.h"
#include "monitoring/metrics.h"

namespace tessera {

class Exporter {
 public:
  /// Serves `metrics` at address:port until destroyed; port 0 takes a free one. `metrics` must outlive the
  /// exporter. Errors: the port is taken, or the address is not one of this machine's.
  static Result<std::unique_ptr<Exporter>> open(const Metrics& metrics, int port = 0,
                                                const std::string& address = "127.0.0.1");
  ~Exporter();
  int port() const { return port_; }
  const std::string& url() const { return url_; }  ///< "http://127.0.0.1:9101/metrics"

 private:
  struct Server;
  Exporter(std::unique_ptr<Server> server, std::string address, int port);
  std::unique_ptr<Server> server_;
  std::string address_;
  int port_;
  std::string url_;
};

}  // namespace tessera
