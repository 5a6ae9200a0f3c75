// What the bulk path gets out of a link: two processes, each of which fetches a blob of the other at the same
// time. Start `link_bench serve HOST PORT MEGABYTES` and `link_bench connect HOST PORT MEGABYTES`; each
// prints the seconds until all of the other's bytes were there. Neither shares memory with the other.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "base/random.h"
#include "comm/transport/zmq_endpoint.h"

namespace tessera {
namespace {

const Duration patience = std::chrono::minutes(5);
/// The last message may wait behind lost packets for longer than a closing socket does.
const Duration time_to_leave = std::chrono::seconds(1);

Instant now() {
  return std::chrono::steady_clock::now();
}

Blob random_blob(std::size_t megabytes, std::uint64_t seed) {
  Buffer bytes = Buffer::allocate(megabytes * 1'000'000);
  KeyedRandom random(seed);
  for (std::size_t i = 0; i + 8 <= bytes.bytes.size(); i += 8) {
    const std::uint64_t word = random();
    std::memcpy(bytes.bytes.data() + i, &word, sizeof word);
  }
  return Blob(std::move(bytes));
}

/// The next message; ends the program when none comes.
Received await(Endpoint& endpoint) {
  const std::optional<Arrival> arrival = endpoint.receive(now() + patience);
  if (!arrival || !std::holds_alternative<Received>(*arrival)) {
    std::fprintf(stderr, "link_bench: no message came\n");
    std::exit(1);
  }
  return std::get<Received>(*arrival);
}

/// Fetches the other's blob while the other fetches ours; stays until the other has it, too.
void exchange(Endpoint& endpoint, PeerId peer, const BlobRef& theirs, const Message& all_is_here) {
  const Instant begin = now();
  endpoint.fetch(peer, theirs);
  bool here = false, there = false;
  while (!here || !there) {
    const std::optional<Arrival> arrival = endpoint.receive(now() + patience);
    if (!arrival) std::exit(1);
    if (const auto* blob = std::get_if<BlobArrived>(&*arrival)) {
      if (!blob->blob.ok()) {
        std::fprintf(stderr, "link_bench: %s\n", blob->blob.error().message.c_str());
        std::exit(1);
      }
      std::printf("%.4f\n", seconds(now() - begin));
      here = true;
      endpoint.send(peer, all_is_here);
    } else {
      there = true;
    }
  }
  std::this_thread::sleep_for(time_to_leave);
}

int serve(const std::string& host, int port, std::size_t megabytes) {
  CoordinatorEndpointOptions options;
  options.host = host;
  options.control_port = port;
  options.bulk_port = port + 1;
  const auto endpoint = make_coordinator_endpoint(options);
  if (!endpoint.ok()) return std::fprintf(stderr, "%s\n", endpoint.error().message.c_str()), 1;
  const BlobRef own = (*endpoint)->offer(random_blob(megabytes, 1));
  const Received hello = await(**endpoint);
  (*endpoint)->send(hello.from, Publish{.head = {.parameters = own}});
  exchange(**endpoint, hello.from, std::get<Offer>(hello.message).contribution, Stop{"all is here", 0});
  return 0;
}

int connect(const std::string& host, int port, std::size_t megabytes) {
  WorkerEndpointOptions options;
  options.control = "tcp://" + host + ":" + std::to_string(port);
  options.bulk = "tcp://" + host + ":" + std::to_string(port + 1);
  const auto endpoint = make_worker_endpoint(options);
  if (!endpoint.ok()) return std::fprintf(stderr, "%s\n", endpoint.error().message.c_str()), 1;
  Offer offer;
  offer.contribution = (*endpoint)->offer(random_blob(megabytes, 2));
  (*endpoint)->send(coordinator_peer, offer);
  const Received published = await(**endpoint);
  exchange(**endpoint, coordinator_peer, std::get<Publish>(published.message).head.parameters,
           Leave{"all is here"});
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int count, char** arguments) {
  if (count != 5) return std::fprintf(stderr, "usage: link_bench serve|connect HOST PORT MEGABYTES\n"), 2;
  const std::string role = arguments[1];
  const int port = std::atoi(arguments[3]);
  const auto megabytes = static_cast<std::size_t>(std::atoi(arguments[4]));
  return role == "serve" ? tessera::serve(arguments[2], port, megabytes)
                         : tessera::connect(arguments[2], port, megabytes);
}
