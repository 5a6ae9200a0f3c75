// The machines and links of a simulated cluster.
#pragma once
#include <cstdint>

namespace tessera {

enum class Topology : std::uint8_t {
  server,  ///< every worker sends to a coordinator and hears from it (Tessera)
  ring,    ///< the workers reduce and gather among themselves, everybody sends and receives at once
};

/// Rates are in bits per second, 0: unlimited.
struct Cluster {
  double flops_per_second = 1e10;  ///< that one worker of speed 1 reaches in training
  Topology topology = Topology::server;
  double up_bits = 0, down_bits = 0;  ///< of a worker's link; a ring is as fast as the slower of the two
  double server_bits = 0;             ///< of the coordinator's link, each way, shared by all workers
  double latency_seconds = 0;         ///< one way
  bool full_duplex = true;            ///< a worker may send while it receives
  /// Messages, one after the other, from "the contribution is ready" until its last byte has arrived, and
  /// likewise for a version: each costs a latency. 1: the bytes alone. Tessera's coordinator hears of a
  /// contribution, asks for it and gets it.
  int messages_up = 1, messages_down = 1;
  double merge_seconds = 0;  ///< the coordinator's work on one merge
};

}  // namespace tessera
