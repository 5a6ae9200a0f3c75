// The I/O thread of a ZmqEndpoint: owns the sockets and everything of the bulk path. Its owner speaks to it
// through tasks and hears from it through the inbox. Included by transport .cpp only.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "comm/transport/bulk_fetch.h"
#include "comm/transport/bulk_offers.h"
#include "comm/transport/inbox.h"
#include "comm/transport/link_throttle.h"
#include "comm/transport/zmq_endpoint.h"
#include "comm/transport/zmq_sockets.h"

namespace tessera {

class ZmqLoop {
 public:
  struct Options {
    TransportOptions transport;
    Duration heartbeat_interval{};
    const std::atomic<std::uint64_t>* steps = nullptr;
  };
  ZmqLoop(std::unique_ptr<ZmqSockets> sockets, const Options& options);
  ~ZmqLoop();

  // ---- from any thread
  using Task = std::function<void(ZmqLoop&)>;
  void post(Task task);  ///< to be run by the I/O thread, in order
  void run();            ///< the I/O thread: until a task calls stop()
  Inbox& inbox() { return inbox_; }
  CounterBook& counters() { return counters_; }

  // ---- for tasks, in the I/O thread
  void stop() { stopping_ = true; }
  void identify(JobId job, Epoch epoch, Incarnation incarnation);
  void send(PeerId to, const Message& message);
  void offer(const Blob& blob) { offers_.add(blob); }
  void withdraw(const Digest& digest) { offers_.remove(digest); }
  void fetch(PeerId from, const BlobRef& ref);
  void join(PeerId from, const Digest& digest);
  Status reconnect(const std::string& control, const std::string& bulk);

 private:
  void run_tasks();
  void read_control();
  void read_bulk();
  void accept_control(Incoming incoming);
  void accept_bulk(Incoming incoming, Instant now);
  void answer(PeerId to, const ChunkRequest& request);
  void send_control(PeerId to, std::vector<std::byte> frame);
  void put_control(PeerId to, std::vector<std::byte> frame);
  void put_chunk(PeerId to, std::vector<zmq::message_t> parts, const ChunkRequest& request,
                 std::uint64_t size);
  void answer_early(Instant now);
  bool ask(PeerId to, const ChunkRequest& request);
  void let_out(Instant now);
  void flush_backlog();
  void beat(Instant now);
  void deliver_blobs();
  Duration patience(Instant now) const;

  std::unique_ptr<ZmqSockets> sockets_;
  Options options_;
  CounterBook counters_;
  Inbox inbox_;
  BulkOffers offers_;
  BulkFetcher fetcher_;

  int wake_;  ///< eventfd: readable while tasks wait
  std::mutex tasks_mutex_;
  std::vector<Task> tasks_;
  bool stopping_ = false;

  /// The imitated link, if there is one: frames that the real one has, or would carry, too early.
  struct Slow {
    explicit Slow(const LinkOptions& link) : up(link), down(link) {}
    LinkThrottle up, down;
    struct Control {
      PeerId to;
      std::vector<std::byte> frame;
    };
    struct Bulk {
      PeerId to;
      std::vector<zmq::message_t> parts;
      ChunkRequest request;
      std::uint64_t size;  ///< of the chunk
    };
    DelayLine<Control> control_out;
    DelayLine<Bulk> bulk_out;
    DelayLine<Incoming> control_in, bulk_in;
  };
  std::optional<Slow> slow_;

  /// Requests that could not be answered yet, and how long to try.
  std::map<std::pair<PeerId, ChunkRequest>, Instant> early_;
  Instant next_early_{};

  Header header_;
  std::deque<std::vector<std::byte>> backlog_;  ///< of a worker whose coordinator cannot be reached just now
  std::optional<Heartbeat> heartbeat_;
  Instant next_beat_;
};

}  // namespace tessera
