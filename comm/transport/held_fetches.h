// Blobs that are had from shared memory: held as the files that their writers made, and verified by whoever
// receives them, in its own thread. A thread that is woken for it would, on a busy machine, wait for its turn
// longer than the verification takes.
#pragma once
#include <vector>

#include "base/parallel.h"
#include "comm/transport/bulk_shared.h"
#include "comm/transport/counter_book.h"

namespace tessera {

/// One thread at a time.
class HeldFetches {
 public:
  struct Options {
    std::uint64_t max_blob_bytes;       ///< larger ones are not held
    bool looks_for_non_finite = false;  ///< finds out BlobArrived::is_finite
    int threads = hardware_threads();   ///< that verify
  };
  /// `shared` may be null: nothing is had so then.
  HeldFetches(SharedFolder* shared, const Options& options, CounterBook& counters)
      : shared_(shared), options_(options), counters_(counters) {}

  /// Begins to fetch a blob that is not being fetched. False: not from here; its bytes must be asked for.
  bool fetch(PeerId from, const BlobRef& ref);
  /// Makes `from` another one to ask, should the file not be what it says. False: no such fetch.
  bool join(PeerId from, const Digest& digest);
  bool any() const { return !fetches_.empty(); }

  /// What was not verified: to be had from these peers, the first one before the others.
  struct Refused {
    BlobRef ref;
    std::vector<PeerId> from;
  };
  struct Verified {
    std::vector<BlobArrived> arrived;
    std::vector<Refused> refused;
  };
  /// Ends all fetches, side by side.
  Verified verify();

 private:
  struct Fetch {
    BlobRef ref;
    std::vector<PeerId> from;
    Buffer file;
    bool is_good = false, is_finite = false;
  };
  SharedFolder* shared_;
  Options options_;
  CounterBook& counters_;
  std::vector<Fetch> fetches_;
};

}  // namespace tessera
