#include "comm/transport/zmq_loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "comm/drop_reasons.h"
#include "comm/message_codec.h"

namespace tessera {
namespace {

constexpr std::size_t backlog_limit = 256;
constexpr std::size_t inbox_limit =
    1024;  // an owner that is behind: control waits in the sockets, then with the peers
constexpr int control_a_turn = 64;
constexpr std::size_t early_limit = 1024;
const Duration connecting = std::chrono::seconds(1), soon = std::chrono::milliseconds(20);
constexpr int bulk_a_turn = 8;  // so that a heartbeat waits for a millisecond or two of chunks at most

std::size_t size_of(const Incoming& incoming) {
  std::size_t bytes = 0;
  for (const zmq::message_t& part : incoming.parts) bytes += part.size();
  return bytes;
}

Instant now() {
  return std::chrono::steady_clock::now();
}
Bytes bytes_of(const zmq::message_t& message) {
  return {static_cast<const std::byte*>(message.data()), message.size()};
}
zmq::message_t message_of(const std::vector<std::byte>& frame) {
  return {frame.data(), frame.size()};
}

// Called by ZeroMQ, in a thread of its own, when it is done with a lent buffer. Named in tests/tsan.supp.
void release_lent_buffer(void*, void* buffer) {
  delete static_cast<Buffer*>(buffer);
}

// A message part that lends the buffer's memory and keeps it alive until ZeroMQ is done with it.
zmq::message_t message_of(Buffer buffer) {
  if (buffer.bytes.empty()) return {};
  auto* kept = new Buffer(std::move(buffer));
  return {kept->bytes.data(), kept->bytes.size(), release_lent_buffer, kept};
}

}  // namespace

ZmqLoop::ZmqLoop(std::unique_ptr<ZmqSockets> sockets, const Options& options)
    : sockets_(std::move(sockets)),
      options_(options),
      fetcher_(options.transport.bulk, counters_),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  TESSERA_CHECK(wake_ >= 0, "no file descriptor left for an endpoint");
  if (options.transport.link.slows()) slow_.emplace(options.transport.link);
}
ZmqLoop::~ZmqLoop() {
  ::close(wake_);
}

void ZmqLoop::post(Task task) {
  {
    std::scoped_lock lock(tasks_mutex_);
    tasks_.push_back(std::move(task));
  }
  const std::uint64_t one = 1;
  TESSERA_CHECK(::write(wake_, &one, sizeof one) == sizeof one);
}

void ZmqLoop::run_tasks() {
  std::uint64_t count = 0;
  if (::read(wake_, &count, sizeof count) < 0) return;  // nothing was posted
  std::vector<Task> tasks;
  {
    std::scoped_lock lock(tasks_mutex_);
    tasks.swap(tasks_);
  }
  for (Task& task : tasks) task(*this);
}

void ZmqLoop::run() {
  while (!stopping_) {
    const bool room = inbox_.size() < inbox_limit;
    sockets_->wait(wake_, room, !backlog_.empty(), patience(now()));
    run_tasks();
    flush_backlog();
    if (room) read_control();
    for (std::size_t i = sockets_->failed_handshakes(); i > 0; --i) counters_.drop(drop::handshake);
    read_bulk();
    answer_early(now());
    fetcher_.work(now(), [this](PeerId to, const ChunkRequest& request) { return ask(to, request); });
    let_out(now());
    deliver_blobs();
    beat(now());
  }
  let_out(Instant::max());  // a farewell does not wait for the slow link
  sockets_
      .reset();  // here, so that leaving messages get their time and the owner's destructor is quick after it
}

Duration ZmqLoop::patience(Instant now) const {
  Duration patience = std::chrono::seconds(1);
  if (const auto due = fetcher_.next_work(now)) patience = std::min(patience, *due - now);
  if (slow_) {
    for (const auto& due : {slow_->control_out.next(), slow_->bulk_out.next(), slow_->control_in.next(),
                            slow_->bulk_in.next()}) {
      if (due) patience = std::min(patience, *due - now);
    }
  }
  if (!early_.empty()) patience = std::min(patience, next_early_ - now);
  if (heartbeat_ && options_.heartbeat_interval > Duration{}) patience = std::min(patience, next_beat_ - now);
  return std::max(patience, Duration{});
}

void ZmqLoop::identify(JobId job, Epoch epoch, Incarnation incarnation) {
  header_.job = job;
  header_.epoch = epoch;
  header_.incarnation = incarnation;
}

void ZmqLoop::send(PeerId to, const Message& message) {
  ++header_.sequence;
  if (const auto* heartbeat = std::get_if<Heartbeat>(&message)) {
    heartbeat_ = *heartbeat;
    next_beat_ = now() + options_.heartbeat_interval;
  }
  send_control(to, encode(header_, message));
}

void ZmqLoop::send_control(PeerId to, std::vector<std::byte> frame) {
  if (!slow_) return put_control(to, std::move(frame));
  const Instant due = slow_->up.control(now(), frame.size());
  slow_->control_out.push(due, {to, std::move(frame)});
}

void ZmqLoop::put_control(PeerId to, std::vector<std::byte> frame) {
  if (!sockets_->listens() && !backlog_.empty()) {
    backlog_.push_back(std::move(frame));  // behind those that wait already
  } else {
    std::vector<zmq::message_t> parts;
    parts.push_back(message_of(frame));
    const Sent sent = sockets_->send(Path::control, to, std::move(parts));
    if (sent == Sent::yes)
      counters_.add(&TransportCounters::control_bytes_out, frame.size());
    else if (sockets_->listens())
      counters_.drop(sent == Sent::busy ? drop::peer_busy : drop::no_route);
    else
      backlog_.push_back(std::move(frame));
  }
  if (backlog_.size() > backlog_limit) {
    backlog_.pop_front();
    counters_.drop(drop::no_route);
  }
}

void ZmqLoop::flush_backlog() {
  while (!backlog_.empty()) {
    std::vector<zmq::message_t> parts;
    parts.push_back(message_of(backlog_.front()));
    if (sockets_->send(Path::control, coordinator_peer, std::move(parts)) != Sent::yes) return;
    counters_.add(&TransportCounters::control_bytes_out, backlog_.front().size());
    backlog_.pop_front();
  }
}

void ZmqLoop::read_control() {
  for (int i = 0; i < control_a_turn; ++i) {
    std::optional<Incoming> incoming = sockets_->receive(Path::control);
    if (!incoming) return;
    if (!slow_) {
      accept_control(*std::move(incoming));
      continue;
    }
    const Instant due = slow_->down.control(now(), size_of(*incoming));
    slow_->control_in.push(due, *std::move(incoming));
  }
}

void ZmqLoop::accept_control(Incoming incoming) {
  const PeerId from = incoming.from;
  if (incoming.problem == nullptr && incoming.parts.size() != 1) incoming.problem = drop::parts;
  if (incoming.problem != nullptr) return counters_.drop(incoming.problem);
  const Bytes frame = bytes_of(incoming.parts[0]);
  counters_.add(&TransportCounters::control_bytes_in, frame.size());
  Result<Decoded> decoded = decode(frame);
  if (!decoded.ok()) return counters_.drop(decoded.error().message);
  if (const auto* request = std::get_if<ChunkRequest>(&decoded->content)) return answer(from, *request);
  Message* message = std::get_if<Message>(&decoded->content);
  if (message == nullptr) return counters_.drop(drop::wrong_path);
  inbox_.push(Received{from, decoded->header, std::move(*message)});
}

void ZmqLoop::read_bulk() {
  for (int i = 0; i < bulk_a_turn; ++i) {
    std::optional<Incoming> incoming = sockets_->receive(Path::bulk);
    if (!incoming) return;
    if (!slow_) {
      accept_bulk(*std::move(incoming), now());
      continue;
    }
    const Instant due = slow_->down.bulk(now(), size_of(*incoming));
    slow_->bulk_in.push(due, *std::move(incoming));
  }
}

void ZmqLoop::accept_bulk(Incoming incoming, Instant now) {
  if (incoming.problem == nullptr && incoming.parts.empty()) incoming.problem = drop::parts;
  if (incoming.problem != nullptr) return counters_.drop(incoming.problem);
  const Result<Decoded> decoded = decode(bytes_of(incoming.parts[0]));
  if (!decoded.ok()) return counters_.drop(decoded.error().message);
  const auto* header = std::get_if<ChunkHeader>(&decoded->content);
  if (header == nullptr) return counters_.drop(drop::wrong_path);
  if (incoming.parts.size() != (header->known ? 2u : 1u)) return counters_.drop(drop::parts);
  fetcher_.accept(incoming.from, *header, header->known ? bytes_of(incoming.parts[1]) : Bytes(), now);
}

void ZmqLoop::answer(PeerId to, const ChunkRequest& request) {
  // What was offered or withdrawn before the peer asked may still be waiting among the tasks.
  run_tasks();
  auto [header, chunk] = offers_.answer(request);
  const std::uint64_t size = header.size;
  std::vector<zmq::message_t> parts;
  parts.push_back(message_of(encode(header)));
  if (header.known) parts.push_back(message_of(std::move(chunk)));
  if (!slow_) return put_chunk(to, std::move(parts), request, size);
  std::size_t bytes = 0;
  for (const zmq::message_t& part : parts) bytes += part.size();
  const Instant due = slow_->up.bulk(now(), bytes);
  slow_->bulk_out.push(due, {to, std::move(parts), request, size});
}

/// The connection for chunks may come a little later than the one that the request came through.
void ZmqLoop::put_chunk(PeerId to, std::vector<zmq::message_t> parts, const ChunkRequest& request,
                        std::uint64_t size) {
  const Sent sent = sockets_->send(Path::bulk, to, std::move(parts));
  if (sent == Sent::yes) {
    counters_.add(&TransportCounters::bulk_bytes_out, size);
    early_.erase({to, request});
  } else if (early_.size() < early_limit &&
             now() < early_.try_emplace({to, request}, now() + connecting).first->second) {
    next_early_ = now() + soon;
  } else {
    counters_.drop(sent == Sent::busy ? drop::peer_busy : drop::no_route);
    early_.erase({to, request});
  }
}

void ZmqLoop::answer_early(Instant now) {
  if (early_.empty() || now < next_early_) return;
  next_early_ = now + soon;
  for (const auto& [asked, until] : std::map(early_)) answer(asked.first, asked.second);
}

/// False: not now. Requests go by the control path: behind chunks of the other direction they would wait for
/// as long as what they ask for could have taken, and each direction would stand still half of the time.
bool ZmqLoop::ask(PeerId to, const ChunkRequest& request) {
  std::vector<std::byte> frame = encode(request);
  if (slow_) return send_control(to, std::move(frame)), true;
  if (!backlog_.empty()) return false;
  std::vector<zmq::message_t> parts;
  parts.push_back(message_of(frame));
  if (sockets_->send(Path::control, to, std::move(parts)) != Sent::yes) return false;
  counters_.add(&TransportCounters::control_bytes_out, frame.size());
  return true;
}

/// Whatever has come to the end of the imitated link.
void ZmqLoop::let_out(Instant now) {
  if (!slow_) return;
  while (auto control = slow_->control_out.pop(now)) put_control(control->to, std::move(control->frame));
  while (auto chunk = slow_->bulk_out.pop(now))
    put_chunk(chunk->to, std::move(chunk->parts), chunk->request, chunk->size);
  while (auto control = slow_->control_in.pop(now)) accept_control(*std::move(control));
  while (auto bulk = slow_->bulk_in.pop(now)) accept_bulk(*std::move(bulk), now);
}

void ZmqLoop::fetch(PeerId from, const BlobRef& ref) {
  fetcher_.fetch(from, ref, now());
  deliver_blobs();
}

void ZmqLoop::join(PeerId from, const Digest& digest) {
  fetcher_.join(from, digest);
}

void ZmqLoop::deliver_blobs() {
  for (BlobArrived& arrival : fetcher_.take_done()) inbox_.push(std::move(arrival));
}

void ZmqLoop::beat(Instant now) {
  if (!heartbeat_ || options_.heartbeat_interval <= Duration{} || now < next_beat_) return;
  Heartbeat heartbeat = *heartbeat_;
  if (options_.steps != nullptr) heartbeat.steps = options_.steps->load(std::memory_order_relaxed);
  send(coordinator_peer, heartbeat);
}

Status ZmqLoop::reconnect(const std::string& control, const std::string& bulk) {
  TESSERA_CHECK(!sockets_->listens(), "only workers reconnect");
  auto sockets = ZmqSockets::connect(control, bulk, options_.transport.silence);
  if (!sockets.ok()) return sockets.error();
  sockets_ = *std::move(sockets);
  fetcher_.ask_again();
  return {};
}

}  // namespace tessera
