// What only sockets can get wrong: hostile bytes, lying peers, ports, restarts, and control that waits behind
// bulk.
#include "comm/transport/zmq_endpoint.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <csignal>
#include <zmq.hpp>

#include "comm/drop_reasons.h"
#include "comm/message_codec.h"
#include "tests/comm/message_samples.h"
#include "tests/comm/transport_fixtures.h"

namespace tessera {
namespace {

using namespace std::chrono_literals;
using namespace test;
using testing::HasSubstr;

int port_of(const std::string& address) {
  return std::stoi(address.substr(address.rfind(':') + 1));
}

std::uint64_t all_drops(const Endpoint& endpoint) {
  std::uint64_t sum = 0;
  for (const auto& [reason, count] : endpoint.counters().dropped) sum += count;
  return sum;
}

// A plain TCP connection that pours bytes into a port until they are written or the other side hangs up.
void pour(const std::string& address, Bytes bytes) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port_of(address)));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval patience{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) break;
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  ::close(fd);
}

/// Under which a worker's own chunks come: bit 0 of byte 8 is set (docs/protocol.md).
std::string upward(std::string routing_id) {
  if (!routing_id.empty()) routing_id.at(8) |= 1;
  return routing_id;
}

// A peer made of bare sockets: speaks ZeroMQ but says what it likes.
struct BarePeer {
  zmq::context_t context;
  zmq::socket_t control{context, zmq::socket_type::dealer}, bulk{context, zmq::socket_type::dealer};

  BarePeer(const ZmqEndpoint& coordinator, const std::string& routing_id) {
    for (zmq::socket_t* socket : {&control, &bulk}) {
      const std::string id = socket == &bulk ? upward(routing_id) : routing_id;
      if (!id.empty()) socket->set(zmq::sockopt::routing_id, id);
      socket->set(zmq::sockopt::linger, 0);
      socket->set(zmq::sockopt::rcvtimeo, 10'000);
    }
    control.connect(coordinator.control_address());
    bulk.connect(coordinator.bulk_address());
  }
  static void send(zmq::socket_t& socket, const std::vector<std::vector<std::byte>>& parts) {
    for (std::size_t i = 0; i < parts.size(); ++i)
      socket.send(zmq::message_t(parts[i].data(), parts[i].size()),
                  i + 1 < parts.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
  }
  std::optional<ChunkRequest> next_request() {
    zmq::message_t part;
    if (!control.recv(part)) return std::nullopt;
    return std::get<ChunkRequest>(decode({static_cast<const std::byte*>(part.data()), part.size()})->content);
  }
};

TEST(HostileBytes, OnEitherPortHarmNobodyAndAreCounted) {
  const auto coordinator = coordinator_with();
  const auto worker = worker_of(*coordinator);
  std::atomic<bool> over = false;
  std::thread attacker([&] {
    for (int round = 0; round < 8; ++round) {
      KeyedRandom random(round);
      std::vector<std::byte> noise(1'000'000);
      for (std::byte& byte : noise) byte = std::byte(random.below(256));
      noise[0] = std::byte(round % 4 == 0   ? 0xff
                           : round % 4 == 1 ? 0x01
                                            : round);  // ZMTP 2+, ZMTP 1, whatever
      pour(round % 2 == 0 ? coordinator->control_address() : coordinator->bulk_address(), noise);
    }
    over = true;
  });
  std::uint64_t spoken = 0;
  for (; !over || spoken < 50; ++spoken) {
    worker->send(coordinator_peer, Heartbeat{spoken, {}, {}});
    const auto heard = next<Received>(*coordinator);
    if (!heard) break;
    EXPECT_EQ(heard->message, Message(Heartbeat{spoken, {}, {}}));
  }
  attacker.join();
  EXPECT_GE(spoken, 50u);
  const Blob blob = random_blob(3 << 20);
  expect_fetched(*worker, coordinator_peer, coordinator->offer(blob), blob);
  EXPECT_TRUE(soon([&] { return all_drops(*coordinator) > 0; }));
  EXPECT_EQ(all_drops(*worker), 0u);
}

TEST(Offers, AreKnownToWhoeverHearsOfThem) {
  const auto coordinator = coordinator_with();
  const auto worker = worker_of(*coordinator);
  // The coordinator's loop is kept busy with control messages, so that requests meet it in every place.
  for (int i = 0; i < 400; ++i) {
    for (std::uint64_t k = 0; k < 20; ++k) worker->send(coordinator_peer, Heartbeat{k, {}, {}});
    const Blob blob = random_blob(100 + i);
    expect_fetched(*worker, coordinator_peer, coordinator->offer(blob), blob);
    while (coordinator->receive({})) {
    }
  }
}

TEST(HostileBytes, InProperFramesAreDroppedByReason) {
  const auto coordinator = coordinator_with();
  BarePeer peer(*coordinator, "0123456789abcdef");
  const auto whole = encode({}, Leave{"bye"});
  const auto noise = std::vector<std::byte>(64, std::byte(0xa5));
  BarePeer::send(peer.control, {noise});
  BarePeer::send(peer.control, {{whole.begin(), whole.end() - 3}});
  BarePeer::send(peer.control, {whole, whole});
  BarePeer::send(peer.control, {whole, whole, whole, whole});
  BarePeer::send(peer.control, {encode(ChunkHeader{})});
  BarePeer::send(peer.bulk, {encode(ChunkRequest{})});
  BarePeer::send(peer.bulk, {whole});
  BarePeer::send(peer.bulk, {noise, noise});
  BarePeer::send(peer.bulk, {encode(ChunkHeader{{1, 1}, 0, true, 4, 0})});
  BarePeer::send(peer.bulk, {encode(ChunkHeader{{1, 1}, 0, true, 4, 0}), noise});
  BarePeer nameless(*coordinator, "");
  BarePeer::send(nameless.control, {whole});
  const std::map<std::string, std::uint64_t> expected = {{drop::malformed, 2},  {drop::ragged, 1},
                                                         {drop::parts, 3},      {drop::wrong_path, 3},
                                                         {drop::unexpected, 1}, {drop::anonymous, 1}};
  soon([&] { return coordinator->counters().dropped == expected; });
  EXPECT_EQ(coordinator->counters().dropped, expected);
  BarePeer::send(peer.control, {whole});
  EXPECT_EQ(next<Received>(*coordinator)->message, Message(Leave{"bye"}));
}

TEST(HostileBytes, FramesPastTheCapCostTheirSenderTheConnection) {
  const auto coordinator = coordinator_with();
  BarePeer peer(*coordinator, "0123456789abcdef");
  BarePeer::send(peer.control, {std::vector<std::byte>(max_frame_bytes + 8)});
  BarePeer::send(peer.bulk, {std::vector<std::byte>(chunk_bytes + 8192)});
  const auto worker = worker_of(*coordinator);
  introduce(*worker, *coordinator);
  EXPECT_EQ(coordinator->counters().bulk_bytes_in, 0u);
}

TEST(LyingPeer, IsAskedAgainForADamagedChunk) {
  const auto coordinator = coordinator_with();
  BarePeer peer(*coordinator, "0123456789abcdef");
  BarePeer::send(peer.control, {encode({}, Leave{"hello"})});
  const PeerId id = next<Received>(*coordinator)->from;
  const Blob blob = random_blob(chunk_bytes + 100);
  coordinator->fetch(id, {blob.digest, blob.bytes().size(), {}});
  int asked = 0;
  for (; asked < 3; ++asked) {  // two chunks, the first of them twice
    const std::optional<ChunkRequest> request = peer.next_request();
    ASSERT_TRUE(request);
    const Bytes chunk =
        blob.bytes().subspan(request->index * chunk_bytes, chunk_size(blob.bytes().size(), request->index));
    std::vector<std::byte> bytes(chunk.begin(), chunk.end());
    const ChunkHeader header{request->blob, request->index, true, bytes.size(), checksum64(chunk)};
    if (asked == 0) bytes[50] ^= std::byte(4);
    BarePeer::send(peer.bulk, {encode(header), bytes});
  }
  const auto arrived = next<BlobArrived>(*coordinator);
  ASSERT_TRUE(arrived && arrived->blob.ok());
  EXPECT_EQ(coordinator->counters().dropped, (std::map<std::string, std::uint64_t>{{drop::checksum, 1}}));
}

// In one TCP connection, what acknowledges the chunks of one direction would wait behind those of the other.
TEST(Bulk, AWorkersChunksGoByAConnectionOfTheirOwn) {
  zmq::context_t context;
  zmq::socket_t control(context, zmq::socket_type::router), bulk(context, zmq::socket_type::router);
  for (zmq::socket_t* socket : {&control, &bulk}) {
    socket->set(zmq::sockopt::rcvtimeo, 10'000);
    socket->set(zmq::sockopt::linger, 0);
    socket->set(zmq::sockopt::router_mandatory, true);
    socket->bind("tcp://127.0.0.1:*");
  }
  const auto worker = make_worker_endpoint({.control = control.get(zmq::sockopt::last_endpoint),
                                            .bulk = bulk.get(zmq::sockopt::last_endpoint),
                                            .transport = {}});
  ASSERT_TRUE(worker.ok());
  const Blob own = random_blob(5000), ours = random_blob(7000);
  const BlobRef offered = (*worker)->offer(own);
  (*worker)->send(coordinator_peer, Leave{"hello"});
  zmq::message_t id, part;
  ASSERT_TRUE(control.recv(id));
  ASSERT_TRUE(control.recv(part));
  const auto send = [&](zmq::socket_t& socket, const std::vector<std::vector<std::byte>>& parts) {
    socket.send(zmq::message_t(id.data(), id.size()), zmq::send_flags::sndmore);
    BarePeer::send(socket, parts);
  };

  send(control, {encode(ChunkRequest{offered.digest, 0})});
  ASSERT_TRUE(bulk.recv(part));
  EXPECT_EQ(part.to_string(), upward(id.to_string()));
  EXPECT_NE(part.to_string(), id.to_string());
  while (part.more()) ASSERT_TRUE(bulk.recv(part));
  EXPECT_EQ(part.size(), 5000u);

  (*worker)->fetch(coordinator_peer, {ours.digest, ours.bytes().size(), {}});
  ASSERT_TRUE(control.recv(part));  // who asks
  ASSERT_TRUE(control.recv(part));
  const std::vector<std::byte> bytes(ours.bytes().begin(), ours.bytes().end());
  send(bulk, {encode(ChunkHeader{ours.digest, 0, true, bytes.size(), checksum64(ours.bytes())}), bytes});
  const auto arrived = next<BlobArrived>(**worker);
  ASSERT_TRUE(arrived && arrived->blob.ok());
}

TEST(Ports, InUseAreAnErrorThatNamesTheAddress) {
  const auto first = coordinator_with();
  CoordinatorEndpointOptions options;
  options.bulk_port = port_of(first->control_address());
  const auto second = make_coordinator_endpoint(options);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, HasSubstr(first->control_address()));
  EXPECT_THAT(second.error().message, HasSubstr("choose another port"));
  const auto nowhere =
      make_worker_endpoint({.control = "localhost", .bulk = "tcp://127.0.0.1:1", .transport = {}});
  ASSERT_FALSE(nowhere.ok());
  EXPECT_THAT(nowhere.error().message, HasSubstr("\"localhost\""));
}

// A coordinator in a process of its own that answers everything; dies with the test.
struct Process {
  pid_t pid;
  std::string control, bulk;

  static Process start() {
    int channel[2];
    TESSERA_CHECK_EQ(::pipe(channel), 0);
    Process process{::fork(), {}, {}};
    if (process.pid == 0) serve(channel[1]);
    ::close(channel[1]);
    FILE* answer = ::fdopen(channel[0], "r");
    char control[64], bulk[64];
    TESSERA_CHECK_EQ(std::fscanf(answer, "%63s %63s", control, bulk), 2);
    std::fclose(answer);
    process.control = control, process.bulk = bulk;
    return process;
  }
  [[noreturn]] static void serve(int channel) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto endpoint = coordinator_with();
    const std::string addresses = endpoint->control_address() + "\n" + endpoint->bulk_address() + "\n";
    TESSERA_CHECK_EQ(::write(channel, addresses.data(), addresses.size()),
                     static_cast<ssize_t>(addresses.size()));
    while (true)
      if (const auto heard = next<Received>(*endpoint, 1s)) endpoint->send(heard->from, HeartbeatAck{});
  }
  void kill() {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
};

TEST(Restart, AfterKill9TheSamePortsAreBoundAtOnceAndWorkersComeBack) {
  Process process = Process::start();  // before this process has threads
  auto worker =
      make_worker_endpoint({.control = process.control, .bulk = process.bulk, .transport = {}}).value();
  worker->send(coordinator_peer, Leave{"are you there"});
  ASSERT_TRUE(next<Received>(*worker));
  process.kill();
  CoordinatorEndpointOptions options;
  options.control_port = port_of(process.control);
  options.bulk_port = port_of(process.bulk);
  const auto coordinator = make_coordinator_endpoint(options);
  ASSERT_TRUE(coordinator.ok()) << coordinator.error().message;
  std::optional<Received> heard;
  for (int i = 0; i < 50 && !heard; ++i) {  // deciders repeat what matters
    worker->send(coordinator_peer, Leave{"and now"});
    heard = next<Received>(**coordinator, 200ms);
  }
  ASSERT_TRUE(heard);
  const Blob blob = random_blob(100);
  expect_fetched(**coordinator, heard->from, worker->offer(blob), blob);
}

TEST(Restart, AWorkerGoesOnWithACoordinatorAtOtherAddresses) {
  auto old_coordinator = coordinator_with();
  const auto worker = worker_of(*old_coordinator);
  const PeerId old_peer = introduce(*worker, *old_coordinator);
  old_coordinator.reset();
  const Blob blob = random_blob(3 << 20);
  worker->fetch(coordinator_peer, {blob.digest, blob.bytes().size(), {}});
  const auto coordinator = coordinator_with();
  coordinator->offer(blob);
  EXPECT_FALSE(worker->reconnect("nowhere", "nowhere").ok());
  ASSERT_TRUE(worker->reconnect(coordinator->control_address(), coordinator->bulk_address()).ok());
  EXPECT_EQ(worker->control_address(), coordinator->control_address());
  EXPECT_NE(introduce(*worker, *coordinator), old_peer);
  const auto arrived = next<BlobArrived>(*worker);
  ASSERT_TRUE(arrived);
  EXPECT_TRUE(arrived->blob.ok());
}

TEST(Heartbeats, AreRepeatedForAnOwnerThatIsBusy) {
  const auto coordinator = coordinator_with();
  std::atomic<std::uint64_t> steps = 0;
  WorkerEndpointOptions options;
  options.heartbeat_interval = 20ms;
  options.steps = &steps;
  const auto worker = worker_of(*coordinator, options);
  EXPECT_FALSE(coordinator->receive(in(100ms)));  // none before the owner's first
  const std::vector<HeldSlot> held = {{{3}, {1}}};
  worker->send(coordinator_peer, Heartbeat{0, held, {}});
  std::uint64_t last = 0;
  for (int i = 0; i < 10; ++i) {  // the owner says nothing more
    steps += 5;
    const auto heard = next<Received>(*coordinator);
    ASSERT_TRUE(heard);
    const auto& heartbeat = std::get<Heartbeat>(heard->message);
    EXPECT_EQ(heartbeat.held, held);
    EXPECT_GE(heartbeat.steps, last);
    last = heartbeat.steps;
  }
  EXPECT_GT(last, 0u);
}

TEST(Leaving, DoesNotSwallowTheLastWord) {
  const auto coordinator = coordinator_with();
  auto worker = worker_of(*coordinator);
  introduce(*worker, *coordinator);
  for (int i = 0; i < 200; ++i) worker->send(coordinator_peer, Leave{std::string(4000, 'x')});
  worker.reset();
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(next<Received>(*coordinator, 5s)) << i;
}

TEST(Control, DoesNotWaitBehindBulk) {
  const auto coordinator = coordinator_with();
  const auto worker = worker_of(*coordinator);
  introduce(*worker, *coordinator);
  const BlobRef ref = coordinator->offer(random_blob(200'000'000));
  const Instant began = std::chrono::steady_clock::now();
  worker->fetch(coordinator_peer, ref);
  std::vector<double> round_trips;
  std::optional<BlobArrived> blob;
  while (!blob) {
    const Instant start = std::chrono::steady_clock::now();
    worker->send(coordinator_peer, Leave{"ping"});
    const auto ping = next<Received>(*coordinator);
    ASSERT_TRUE(ping);
    coordinator->send(ping->from, HeartbeatAck{});
    for (bool pong = false; !pong;) {
      std::optional<Arrival> arrival = worker->receive(in(20s));
      ASSERT_TRUE(arrival);
      pong = std::holds_alternative<Received>(*arrival);
      if (!pong) blob = std::get<BlobArrived>(*std::move(arrival));
    }
    round_trips.push_back(seconds(std::chrono::steady_clock::now() - start));
  }
  EXPECT_TRUE(blob->blob.ok());
  std::sort(round_trips.begin(), round_trips.end());
  RecordProperty("round_trips", static_cast<int>(round_trips.size()));
  RecordProperty("median_us", static_cast<int>(round_trips[round_trips.size() / 2] * 1e6));
  RecordProperty("max_us", static_cast<int>(round_trips.back() * 1e6));
  // Against the fetch itself and not a clock: a busy machine slows both.
  EXPECT_GE(round_trips.size(), 10u);
  EXPECT_LT(round_trips.back(), seconds(std::chrono::steady_clock::now() - began) / 3);
}

}  // namespace
}  // namespace tessera
