// Endpoints over TCP: a control socket and a bulk socket, owned by one I/O thread per endpoint; blobs go
// through shared memory where both sides name the same folder. What ZeroMQ is asked for, and why:
// docs/protocol.md.
#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "comm/transport/bulk_fetch.h"
#include "comm/transport/endpoint.h"
#include "comm/transport/link_throttle.h"

namespace tessera {

struct TransportOptions {
  std::string shared_folder;  ///< e.g. /dev/shm/tessera-XXXX, made if missing; empty: blobs always go over
                              ///< the bulk socket
  bool looks_for_non_finite = false;  ///< finds out BlobArrived::is_finite of blobs in shared memory
  BulkOptions bulk;
  LinkOptions link;  ///< imitates a slow link in both directions; blobs then never go through shared memory
  Duration silence =
      std::chrono::seconds(3);  ///< a connection that is silent for so long is closed and made anew
};
struct CoordinatorEndpointOptions {
  std::string host = "127.0.0.1";       ///< address to listen on
  int control_port = 0, bulk_port = 0;  ///< 0: a free one
  TransportOptions transport;
};
struct WorkerEndpointOptions {
  std::string control, bulk;  ///< the coordinator's addresses, "tcp://127.0.0.1:4711"
  /// Not zero: whenever no Heartbeat went out for so long, the I/O thread repeats the last one that was sent,
  /// with the current `steps`, so that a thread busy training does not look dead. None is made up before the
  /// owner's first.
  Duration heartbeat_interval{};
  const std::atomic<std::uint64_t>* steps = nullptr;  ///< outlives the endpoint
  TransportOptions transport;
};

class ZmqEndpoint final : public Endpoint {
 public:
  struct Parts;  ///< what the factories put together
  explicit ZmqEndpoint(std::unique_ptr<Parts> parts);
  ~ZmqEndpoint() override;  ///< control messages already sent get a quarter of a second to leave

  void identify(JobId job, Epoch epoch, Incarnation incarnation) override;
  void send(PeerId to, const Message& message) override;
  std::optional<Arrival> receive(Instant deadline) override;
  Buffer allocate(std::size_t size) override;
  BlobRef offer(const Blob& blob) override;
  void withdraw(const Digest& digest) override;
  void fetch(PeerId from, const BlobRef& ref) override;
  std::string file_of(const Blob& fetched) const override;
  TransportCounters counters() const override;

  /// Where it listens (coordinator) or connects to (worker): "tcp://127.0.0.1:4711".
  std::string control_address() const;
  std::string bulk_address() const;
  /// Worker only: drops the connections and makes new ones under a fresh routing id. Messages not yet sent
  /// and fetches go on there. Error: an address that cannot be one; nothing changes then.
  Status reconnect(const std::string& control, const std::string& bulk);

 private:
  void verify_held();
  std::unique_ptr<Parts> parts_;
};

/// Errors name the address: a port in use, an address that is not this machine's, a shared folder that is not
/// ours.
Result<std::unique_ptr<ZmqEndpoint>> make_coordinator_endpoint(const CoordinatorEndpointOptions& options);
/// Connecting goes on in the background and for ever; a coordinator that is not there yet is no error.
Result<std::unique_ptr<ZmqEndpoint>> make_worker_endpoint(const WorkerEndpointOptions& options);

}  // namespace tessera
