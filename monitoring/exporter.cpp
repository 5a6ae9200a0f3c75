#include "monitoring/exporter.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

namespace tessera {
namespace {

prometheus::MetricType type_of(MetricInfo::Type type) {
  switch (type) {
    case MetricInfo::Type::counter:
      return prometheus::MetricType::Counter;
    case MetricInfo::Type::gauge:
      return prometheus::MetricType::Gauge;
    case MetricInfo::Type::histogram:
      return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

prometheus::ClientMetric::Histogram histogram_of(const MetricSample& sample) {
  prometheus::ClientMetric::Histogram histogram;
  histogram.sample_count = sample.count;
  histogram.sample_sum = sample.value;
  const auto& bounds = metric::bucket_bounds();
  for (std::size_t i = 0; i < bounds.size(); ++i)
    histogram.bucket.push_back({sample.cumulative[i], bounds[i]});
  histogram.bucket.push_back({sample.count, INFINITY});
  return histogram;
}

// Reads Metrics at every scrape, so that nothing is kept twice.
class Page final : public prometheus::Collectable {
 public:
  explicit Page(const Metrics& metrics) : metrics_(metrics) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families;
    for (const auto& [info, series] : metrics_.samples()) {
      prometheus::MetricFamily& family = families.emplace_back();
      family.name = info->name;
      family.help = info->help;
      family.type = type_of(info->type);
      for (const MetricSample& sample : series) {
        prometheus::ClientMetric& metric = family.metric.emplace_back();
        if (!info->label.empty()) metric.label.push_back({info->label, sample.label_value});
        metric.counter.value = sample.value;
        metric.gauge.value = sample.value;
        if (info->type == MetricInfo::Type::histogram) metric.histogram = histogram_of(sample);
      }
    }
    return families;
  }

 private:
  const Metrics& metrics_;
};

void knock(const std::string& address, int port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  if (inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) return;
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection < 0) return;
  (void)connect(connection, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  close(connection);
}

}  // namespace

struct Exporter::Server {
  std::shared_ptr<Page> page;
  prometheus::Exposer exposer;  // destroyed first: it joins the threads that read the page

  Server(const Metrics& metrics, const std::string& address)
      : page(std::make_shared<Page>(metrics)),
        exposer(std::vector<std::string>{"listening_ports", address, "num_threads", "2", "request_timeout_ms",
                                         "5000"}) {
    exposer.RegisterCollectable(page);
  }
};

Exporter::Exporter(std::unique_ptr<Server> server, std::string address, int port)
    : server_(std::move(server)),
      address_(std::move(address)),
      port_(port),
      url_("http://" + address_ + ":" + std::to_string(port) + "/metrics") {}

// The server's accepting thread looks at its stop flag only every 2 s or when somebody connects: knock until
// it has gone.
Exporter::~Exporter() {
  std::atomic<bool> closed = false;
  std::thread knocker([this, &closed] {
    while (!closed) {
      knock(address_, port_);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  server_.reset();
  closed = true;
  knocker.join();
}

Result<std::unique_ptr<Exporter>> Exporter::open(const Metrics& metrics, int port,
                                                 const std::string& address) {
  const std::string place = address + ":" + std::to_string(port);
  try {
    auto server = std::make_unique<Server>(metrics, place);
    const std::vector<int> ports = server->exposer.GetListeningPorts();
    if (ports.empty()) return fail(ExitCode::failed, "the metrics page got no port at ", place);
    return std::unique_ptr<Exporter>(new Exporter(std::move(server), address, ports.front()));
  } catch (const std::exception& error) {
    return fail(ExitCode::failed, "cannot serve the metrics page at ", place, " (", error.what(),
                "): is the port taken? Choose another, or 0 for a free one");
  }
}

}  // namespace tessera
