// The sockets of an endpoint with their options, and messages as lists of parts: hides that a coordinator
// speaks through ROUTERs, which carry the peer's routing id as a first part, and a worker through DEALERs,
// and that a worker has a connection of its own for what it sends on the bulk path. Included by transport
// .cpp only.
#pragma once
#include <array>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "comm/transport/endpoint.h"

namespace tessera {

enum class Path { control, bulk };
enum class Sent { yes, no_route, busy };

struct Incoming {
  PeerId from;
  std::vector<zmq::message_t> parts;  ///< without the routing id
  const char* problem = nullptr;      ///< a word of drop::all: to be dropped
};

class ZmqSockets {
 public:
  /// Both listen. Error: names the address that could not be had.
  static Result<std::unique_ptr<ZmqSockets>> listen(const std::string& host, int control_port, int bulk_port,
                                                    Duration silence);
  /// Both connect, under one fresh random routing id.
  static Result<std::unique_ptr<ZmqSockets>> connect(const std::string& control, const std::string& bulk,
                                                     Duration silence);
  ~ZmqSockets();  ///< control messages on their way get a quarter of a second to leave

  bool listens() const { return listens_; }
  const std::string& address(Path path) const { return lines_[index(path)].address; }
  /// Never blocks.
  Sent send(Path path, PeerId to, std::vector<zmq::message_t> parts);
  /// The next whole message, if one is there.
  std::optional<Incoming> receive(Path path);
  /// Connections that failed to speak ZMTP since the last call.
  std::size_t failed_handshakes();

  /// Sleeps until something can be received on a path (control only if asked for), `wake` is readable, or the
  /// timeout.
  void wait(int wake, bool control, bool control_writable, Duration timeout);

 private:
  struct Line {
    zmq::socket_t socket;
    zmq::socket_t monitor;
    std::string address;
  };
  ZmqSockets(bool listens, Duration silence);
  static std::size_t index(Path path) { return static_cast<std::size_t>(path); }
  zmq::socket_t make_socket(Path path, Duration silence);
  void watch(Path path);

  bool listens_;
  zmq::context_t context_;
  std::array<Line, 2> lines_;
  /// A worker's, for its chunks. TCP that carries much both ways in one connection loses 5 % of a slow link:
  /// acknowledgements wait behind the data of their direction (measured, docs/performance.md).
  zmq::socket_t upward_;
};

}  // namespace tessera
