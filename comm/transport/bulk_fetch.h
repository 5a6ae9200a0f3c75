// The receiver's side of the bulk path, without sockets or a clock: which chunks to ask for, what to do with
// what arrives, when to ask again, when to give up. The transport moves the frames.
#pragma once
#include <functional>
#include <list>
#include <map>
#include <set>
#include <vector>

#include "base/buffer_pool.h"
#include "comm/transport/bulk_frames.h"
#include "comm/transport/counter_book.h"

namespace tessera {

struct BulkOptions {
  std::uint64_t max_blob_bytes = 8ull
                                 << 30;  ///< larger blobs are refused before any memory is taken for them
  std::size_t credit = 32;  ///< chunks asked of one peer and not yet here; 4 until its first one came
  /// Ask again after so long without a chunk, or twice the time that the peer's answers take; doubled each
  /// time in a row.
  Duration retry = std::chrono::seconds(2);
  Duration give_up = std::chrono::seconds(20);  ///< fail after so long without a good chunk
};

/// One thread at a time.
class BulkFetcher {
 public:
  BulkFetcher(const BulkOptions& options, CounterBook& counters) : options_(options), counters_(counters) {}

  /// Starts a fetch of a blob that is not being fetched.
  void fetch(PeerId from, const BlobRef& ref, Instant now);
  /// Makes `from` the next source of a fetch that is under way, should the first one fail; nothing if it has
  /// ended.
  void join(PeerId from, const Digest& digest);
  void accept(PeerId from, const ChunkHeader& header, Bytes payload, Instant now);

  /// Sends a request; false: not now (no route, or its queue is full), try again soon.
  using Ask = std::function<bool(PeerId, const ChunkRequest&)>;
  /// A bounded piece of whatever is due: requests, repetitions, giving up.
  void work(Instant now, const Ask& ask);
  /// When work() is due at the latest; nothing while no fetch is under way.
  std::optional<Instant> next_work(Instant now) const;
  /// Everything asked for is asked again: the connection is a new one.
  void ask_again();

  /// Fetches that ended since the last call, in the order of their ends.
  std::vector<BlobArrived> take_done() { return std::exchange(done_, {}); }

 private:
  struct Fetch {
    BlobRef ref;
    std::vector<PeerId> sources;             ///< front: whom we ask
    Buffer buffer;                           ///< empty until the first chunk is here
    std::optional<Hasher> hasher;            ///< of the bytes before `verified`
    std::uint64_t verified = 0;              ///< chunks hashed in order
    std::uint64_t next = 0;                  ///< first chunk never asked for
    std::map<std::uint64_t, Instant> asked;  ///< out, since when
    std::set<std::uint64_t> again, arrived;  ///< to be repeated; here but after a gap
    Instant progress;                        ///< last good chunk
    Instant retry_at;
    Duration retry_interval{};
    int bad_chunks = 0;
    bool blocked = false;  ///< the last request could not be sent
    explicit Fetch(const BlobRef& reference) : ref(reference) {}
    std::uint64_t chunks() const { return chunks_of(ref.size); }
  };
  using Fetches = std::list<Fetch>;
  Fetches::iterator find(const Digest& digest);

  void restart(Fetch& fetch, Instant now);
  void went_on(Fetch& fetch, Instant now);
  void store(Fetch& fetch, const ChunkHeader& header, Bytes payload, Instant now);
  void damaged(Fetches::iterator fetch, std::uint64_t index, Instant now);
  void verify_arrived(Fetch& fetch);
  void ask_chunks(Fetch& fetch, Instant now, const Ask& ask);
  bool finish_if_whole(Fetches::iterator fetch, Instant now);
  /// The current source failed: goes on with the next one, or ends the fetch with the error.
  void next_source(Fetches::iterator fetch, Error error, Instant now);
  void end(Fetches::iterator fetch, Result<Blob> blob);
  std::size_t outstanding(PeerId source) const;
  std::size_t credit_of(PeerId source) const;

  BulkOptions options_;
  CounterBook& counters_;
  BufferPool pool_;
  Fetches fetches_;
  std::map<PeerId, Duration> answers_;  ///< how long a peer took for a chunk; what is past counts less
  std::vector<BlobArrived> done_;
};

}  // namespace tessera
