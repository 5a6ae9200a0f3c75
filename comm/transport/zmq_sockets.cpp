#include "comm/transport/zmq_sockets.h"

#include <cstring>

#include "comm/drop_reasons.h"
#include "comm/message_codec.h"

namespace tessera {
namespace {

constexpr std::size_t most_parts = 2;  // of our own frames: header and payload
constexpr int control_linger_ms = 250;

int milliseconds(Duration duration) {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

zmq::message_t routing_id(PeerId peer) {
  return zmq::message_t(&peer, sizeof peer);
}

constexpr std::uint64_t upward_bit = 1;  // of an id's low word: the connection for a worker's own chunks

// Random, since a ROUTER gives a connection to whoever shows its id; never with a leading zero byte, which
// ZeroMQ reserves.
PeerId fresh_peer_id() {
  PeerId id = random_bits128();
  id.high |= 1;  // the first byte in memory
  id.low &= ~upward_bit;
  return id;
}

}  // namespace

ZmqSockets::ZmqSockets(bool listens, Duration silence) : listens_(listens), context_(1) {
  for (Path path : {Path::control, Path::bulk}) {
    lines_[index(path)].socket = make_socket(path, silence);
    if (listens) watch(path);
  }
  if (!listens) upward_ = make_socket(Path::bulk, silence);
}

ZmqSockets::~ZmqSockets() {
  for (Line& line : lines_) {
    if (line.monitor) zmq_socket_monitor(line.socket.handle(), nullptr, 0);
    line.monitor.close();
    line.socket.close();
  }
}

zmq::socket_t ZmqSockets::make_socket(Path path, Duration silence) {
  zmq::socket_t socket(context_, listens_ ? zmq::socket_type::router : zmq::socket_type::dealer);
  namespace opt = zmq::sockopt;
  const bool control = path == Path::control;
  // ZeroMQ would take frames of any announced size. Workers get larger control frames than they send.
  const std::size_t control_cap = listens_ ? max_frame_bytes : max_large_frame_bytes;
  socket.set(opt::maxmsgsize, static_cast<std::int64_t>(control ? control_cap : chunk_bytes + 4096));
  // High-water marks count messages for each peer: few chunks, more of the small ones.
  socket.set(opt::sndhwm, control ? 256 : 64);
  socket.set(opt::rcvhwm, control ? 256 : 64);
  socket.set(opt::linger, control ? control_linger_ms : 0);
  socket.set(opt::handshake_ivl, 3000);
  socket.set(opt::heartbeat_ivl, std::max(1, milliseconds(silence / 3)));
  socket.set(opt::heartbeat_timeout, milliseconds(silence));
  socket.set(opt::heartbeat_ttl, milliseconds(silence));
  socket.set(opt::reconnect_ivl, 50);
  socket.set(opt::reconnect_ivl_max, 2000);
  if (listens_) {
    socket.set(opt::router_mandatory, true);
    // A worker whose connection broke comes back under its id before the old connection is known to be dead.
    // Ids are random and told to nobody else, so nobody can take another's place.
    socket.set(opt::router_handover, true);
  } else {
    socket.set(opt::immediate, true);  // no queue for a coordinator that is not there
  }
  return socket;
}

void ZmqSockets::watch(Path path) {
  Line& line = lines_[index(path)];
  const std::string name = path == Path::control ? "inproc://watch-control" : "inproc://watch-bulk";
  zmq_socket_monitor(line.socket.handle(), name.c_str(),
                     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL);
  line.monitor = zmq::socket_t(context_, zmq::socket_type::pair);
  line.monitor.connect(name);
}

Result<std::unique_ptr<ZmqSockets>> ZmqSockets::listen(const std::string& host, int control_port,
                                                       int bulk_port, Duration silence) {
  std::unique_ptr<ZmqSockets> sockets(new ZmqSockets(true, silence));
  for (Path path : {Path::control, Path::bulk}) {
    Line& line = sockets->lines_[index(path)];
    const int port = path == Path::control ? control_port : bulk_port;
    const std::string address = "tcp://" + host + ":" + (port == 0 ? "*" : std::to_string(port));
    try {
      line.socket.bind(address);
    } catch (const zmq::error_t& error) {
      const char* way_out = error.num() == EADDRINUSE
                                ? " (another process listens there: choose another port, or 0 "
                                  "for a free one)"
                                : "";
      return fail(ExitCode::failed, "cannot listen on ", address, ": ", error.what(), way_out);
    }
    line.address = line.socket.get(zmq::sockopt::last_endpoint);
  }
  return sockets;
}

Result<std::unique_ptr<ZmqSockets>> ZmqSockets::connect(const std::string& control, const std::string& bulk,
                                                        Duration silence) {
  std::unique_ptr<ZmqSockets> sockets(new ZmqSockets(false, silence));
  const PeerId self = fresh_peer_id();
  for (Path path : {Path::control, Path::bulk}) {
    Line& line = sockets->lines_[index(path)];
    line.address = path == Path::control ? control : bulk;
    if (!line.address.starts_with("tcp://"))
      return fail(ExitCode::usage, "not an address of a coordinator: \"", line.address,
                  "\" (tcp://HOST:PORT)");
    try {
      line.socket.set(zmq::sockopt::routing_id, zmq::const_buffer(&self, sizeof self));
      line.socket.connect(line.address);
      if (path == Path::bulk) {
        const PeerId id{self.high, self.low | upward_bit};
        sockets->upward_.set(zmq::sockopt::routing_id, zmq::const_buffer(&id, sizeof id));
        sockets->upward_.connect(line.address);
      }
    } catch (const zmq::error_t& error) {
      return fail(ExitCode::usage, "cannot connect to \"", line.address,
                  "\" (tcp://HOST:PORT): ", error.what());
    }
  }
  return sockets;
}

Sent ZmqSockets::send(Path path, PeerId to, std::vector<zmq::message_t> parts) {
  if (listens_) parts.insert(parts.begin(), routing_id(to));
  zmq::socket_t& socket = path == Path::bulk && !listens_ ? upward_ : lines_[index(path)].socket;
  try {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto more = i + 1 < parts.size() ? zmq::send_flags::sndmore : zmq::send_flags::none;
      if (!socket.send(parts[i], more | zmq::send_flags::dontwait)) return Sent::busy;
    }
  } catch (const zmq::error_t&) {  // EHOSTUNREACH: the ROUTER knows no such peer (any more)
    return Sent::no_route;
  }
  return Sent::yes;
}

std::optional<Incoming> ZmqSockets::receive(Path path) {
  zmq::socket_t& socket = lines_[index(path)].socket;
  Incoming incoming;
  bool first = true, more = true;
  while (more) {
    zmq::message_t part;
    try {
      if (!socket.recv(part, zmq::recv_flags::dontwait)) return std::nullopt;
    } catch (const zmq::error_t&) {  // EINTR: whatever is there will still be there
      return std::nullopt;
    }
    more = part.more();
    if (first && listens_) {
      if (part.size() == sizeof(PeerId)) std::memcpy(&incoming.from, part.data(), sizeof(PeerId));
      if (path == Path::bulk) incoming.from.low &= ~upward_bit;
      if (incoming.from == coordinator_peer) incoming.problem = drop::anonymous;
    } else if (incoming.parts.size() < most_parts) {
      incoming.parts.push_back(std::move(part));
    } else {
      incoming.problem = drop::parts;
    }
    first = false;
  }
  return incoming;
}

std::size_t ZmqSockets::failed_handshakes() {
  std::size_t failures = 0;
  for (Line& line : lines_) {
    if (!line.monitor) continue;
    zmq::message_t event, address;
    while (line.monitor.recv(event, zmq::recv_flags::dontwait)) {
      (void)line.monitor.recv(address, zmq::recv_flags::dontwait);
      ++failures;
    }
  }
  return failures;
}

void ZmqSockets::wait(int wake, bool control, bool control_writable, Duration timeout) {
  std::vector<zmq::pollitem_t> items{{nullptr, wake, ZMQ_POLLIN, 0}};
  for (Path path : {Path::control, Path::bulk}) {
    Line& line = lines_[index(path)];
    short events = path == Path::control && !control ? 0 : ZMQ_POLLIN;
    if (path == Path::control && control_writable) events |= ZMQ_POLLOUT;
    items.push_back({line.socket.handle(), 0, events, 0});
    if (line.monitor) items.push_back({line.monitor.handle(), 0, ZMQ_POLLIN, 0});
  }
  // Rounded up: a timeout cut to 0 would spin until the deadline.
  const auto rounded = std::chrono::ceil<std::chrono::milliseconds>(timeout);
  try {
    zmq::poll(items, rounded);
  } catch (const zmq::error_t&) {  // EINTR
  }
}

}  // namespace tessera
