#include "comm/transport/zmq_endpoint.h"

#include <future>
#include <map>
#include <set>
#include <span>
#include <thread>

#include "comm/transport/held_fetches.h"
#include "comm/transport/zmq_loop.h"
#include "monitoring/log.h"

namespace tessera {

struct ZmqEndpoint::Parts {
  Parts(std::unique_ptr<ZmqSockets> sockets, std::unique_ptr<SharedFolder> folder,
        const ZmqLoop::Options& options)
      : control(sockets->address(Path::control)),
        bulk(sockets->address(Path::bulk)),
        shared(std::move(folder)),
        loop(std::move(sockets), options),
        held(shared.get(),
             {.max_blob_bytes = options.transport.bulk.max_blob_bytes,
              .looks_for_non_finite = options.transport.looks_for_non_finite},
             loop.counters()),
        thread([this] { loop.run(); }) {}

  std::string control, bulk;
  std::unique_ptr<SharedFolder> shared;
  ZmqLoop loop;
  BufferPool pool;                ///< for what cannot lie in shared memory
  std::map<Digest, int> offered;  ///< how often: slots may bring equal blobs
  std::set<Digest> fetching;      ///< until their arrival is handed over: a second fetch joins
  HeldFetches held;
  std::thread thread;
};

namespace {

Result<std::unique_ptr<SharedFolder>> open_shared(const TransportOptions& options) {
  if (options.shared_folder.empty() || options.link.slows()) return std::unique_ptr<SharedFolder>();
  return SharedFolder::open(options.shared_folder);
}

}  // namespace

ZmqEndpoint::ZmqEndpoint(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

ZmqEndpoint::~ZmqEndpoint() {
  parts_->loop.post([](ZmqLoop& loop) { loop.stop(); });
  parts_->thread.join();
}

void ZmqEndpoint::identify(JobId job, Epoch epoch, Incarnation incarnation) {
  parts_->loop.post([=](ZmqLoop& loop) { loop.identify(job, epoch, incarnation); });
}
void ZmqEndpoint::send(PeerId to, const Message& message) {
  parts_->loop.post([=](ZmqLoop& loop) { loop.send(to, message); });
}

void ZmqEndpoint::verify_held() {
  HeldFetches::Verified verified = parts_->held.verify();
  for (BlobArrived& arrival : verified.arrived) parts_->loop.inbox().push(std::move(arrival));
  for (const auto& [ref, peers] : verified.refused) {
    parts_->loop.post([=](ZmqLoop& loop) {
      loop.fetch(peers.front(), ref);
      for (const PeerId& peer : std::span(peers).subspan(1)) loop.join(peer, ref.digest);
    });
  }
}

std::optional<Arrival> ZmqEndpoint::receive(Instant deadline) {
  if (parts_->held.any()) verify_held();
  std::optional<Arrival> arrival = parts_->loop.inbox().pop(deadline);
  if (arrival)
    if (const auto* blob = std::get_if<BlobArrived>(&*arrival)) parts_->fetching.erase(blob->ref.digest);
  return arrival;
}

Buffer ZmqEndpoint::allocate(std::size_t size) {
  if (parts_->shared != nullptr) {
    if (Result<Buffer> shared = parts_->shared->allocate(size); shared.ok()) return *std::move(shared);
  }
  return parts_->pool.take(size);
}
BlobRef ZmqEndpoint::offer(const Blob& blob) {
  BlobRef ref{blob.digest, blob.bytes().size(), {}};
  ++parts_->offered[blob.digest];
  if (parts_->shared != nullptr) {
    if (Result<std::string> path = parts_->shared->publish(blob); path.ok())
      ref.path = *path;
    else
      log_warning(path.error().message, "; peers fetch this blob over the bulk socket");
  }
  parts_->loop.post([=](ZmqLoop& loop) { loop.offer(blob); });
  return ref;
}
void ZmqEndpoint::withdraw(const Digest& digest) {
  const auto offered = parts_->offered.find(digest);
  if (offered == parts_->offered.end() || --offered->second > 0) return;
  parts_->offered.erase(offered);
  if (parts_->shared != nullptr) parts_->shared->remove(digest);
  parts_->loop.post([=](ZmqLoop& loop) { loop.withdraw(digest); });
}
void ZmqEndpoint::fetch(PeerId from, const BlobRef& ref) {
  const bool first = parts_->fetching.insert(ref.digest).second;
  if (first ? parts_->held.fetch(from, ref) : parts_->held.join(from, ref.digest)) return;
  parts_->loop.post([=](ZmqLoop& loop) { first ? loop.fetch(from, ref) : loop.join(from, ref.digest); });
}
std::string ZmqEndpoint::file_of(const Blob& fetched) const {
  return parts_->shared == nullptr ? std::string() : parts_->shared->path_of(fetched.buffer);
}
TransportCounters ZmqEndpoint::counters() const {
  return parts_->loop.counters().read();
}
std::string ZmqEndpoint::control_address() const {
  return parts_->control;
}
std::string ZmqEndpoint::bulk_address() const {
  return parts_->bulk;
}

Status ZmqEndpoint::reconnect(const std::string& control, const std::string& bulk) {
  std::promise<Status> answer;
  parts_->loop.post([&](ZmqLoop& loop) { answer.set_value(loop.reconnect(control, bulk)); });
  TESSERA_TRY(answer.get_future().get());
  parts_->control = control;
  parts_->bulk = bulk;
  return {};
}

Result<std::unique_ptr<ZmqEndpoint>> make_coordinator_endpoint(const CoordinatorEndpointOptions& options) {
  TESSERA_ASSIGN(auto shared, open_shared(options.transport));
  TESSERA_ASSIGN(auto sockets, ZmqSockets::listen(options.host, options.control_port, options.bulk_port,
                                                  options.transport.silence));
  return std::make_unique<ZmqEndpoint>(std::make_unique<ZmqEndpoint::Parts>(
      std::move(sockets), std::move(shared), ZmqLoop::Options{options.transport, {}, nullptr}));
}

Result<std::unique_ptr<ZmqEndpoint>> make_worker_endpoint(const WorkerEndpointOptions& options) {
  TESSERA_ASSIGN(auto shared, open_shared(options.transport));
  TESSERA_ASSIGN(auto sockets, ZmqSockets::connect(options.control, options.bulk, options.transport.silence));
  return std::make_unique<ZmqEndpoint>(std::make_unique<ZmqEndpoint::Parts>(
      std::move(sockets), std::move(shared),
      ZmqLoop::Options{options.transport, options.heartbeat_interval, options.steps}));
}

}  // namespace tessera
