// How a party talks: messages to peers on the control path, blobs on the bulk path. Transports move bytes and
// decide nothing. Implementations: zmq_endpoint (an I/O thread with a control and a bulk socket; shared
// memory on one host) and inproc_endpoint (one thread, no sockets: debug mode and tests).
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "base/clock.h"
#include "base/error.h"
#include "comm/blob.h"
#include "comm/messages.h"

namespace tessera {

using PeerId = Bits128;                      ///< random routing id of a connection; never a slot
inline constexpr PeerId coordinator_peer{};  ///< how a worker addresses its one coordinator

struct Received {
  PeerId from;
  Header header;
  Message message;
};
struct BlobArrived {
  PeerId from;
  BlobRef ref;
  Result<Blob> blob;  ///< verified against ref.digest, or why it could not be had
  /// All of its 4-byte words are finite as fp32 numbers. False: some are not, or nobody has looked.
  bool is_finite = false;
};
using Arrival = std::variant<Received, BlobArrived>;

/// Counters that only grow; monitoring reads them.
struct TransportCounters {
  std::uint64_t control_bytes_in = 0, control_bytes_out = 0;
  std::uint64_t bulk_bytes_in = 0, bulk_bytes_out = 0;  ///< payload over sockets
  std::uint64_t shared_bytes_in = 0;                    ///< payload over shared memory
  std::map<std::string, std::uint64_t> dropped;         ///< messages dropped, by reason
};

class Endpoint {
 public:
  virtual ~Endpoint() = default;
  /// Header fields that go with every message from now on (sequence is the endpoint's own).
  virtual void identify(JobId job, Epoch epoch, Incarnation incarnation) = 0;
  /// Queues a message; never blocks. A peer that is gone loses it: deciders own their retries.
  virtual void send(PeerId to, const Message& message) = 0;
  /// The next arrival, waiting until the deadline; nothing when it passes.
  virtual std::optional<Arrival> receive(Instant deadline) = 0;
  /// Memory to make a blob in that is to be offered: offer() then need not copy it for others on this host.
  virtual Buffer allocate(std::size_t size) { return Buffer::allocate(size); }
  /// Makes a blob fetchable by peers until withdrawn; the reference names its shared-memory file where there
  /// is one.
  /// Equal blobs may be offered several times (by several slots); each offer has its own withdraw.
  virtual BlobRef offer(const Blob& blob) = 0;
  virtual void withdraw(const Digest& digest) = 0;
  /// Starts to fetch a blob; ends in exactly one BlobArrived. A second fetch of the same digest joins the
  /// first.
  virtual void fetch(PeerId from, const BlobRef& ref) = 0;
  /// The shared-memory file that a fetched blob lies in, for who wants it to outlast this process: a link to
  /// it is enough, while the blob is held. Empty: it lies in memory.
  virtual std::string file_of(const Blob& /*fetched*/) const { return {}; }
  virtual TransportCounters counters() const = 0;
};

}  // namespace tessera
