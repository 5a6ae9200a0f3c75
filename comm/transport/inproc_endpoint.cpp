#include "comm/transport/inproc_endpoint.h"

#include <deque>
#include <set>

#include "comm/drop_reasons.h"
#include "comm/message_codec.h"

namespace tessera {
namespace {
class InprocEndpoint;
}

struct InprocHub::State {
  std::map<PeerId, InprocEndpoint*> endpoints;  ///< the coordinator under coordinator_peer
  std::uint64_t workers = 0;
};

namespace {

class InprocEndpoint final : public Endpoint {
 public:
  InprocEndpoint(std::shared_ptr<InprocHub::State> hub, PeerId self) : hub_(std::move(hub)), self_(self) {
    TESSERA_CHECK(hub_->endpoints.emplace(self_, this).second, "a hub has one coordinator at a time");
  }
  ~InprocEndpoint() override { hub_->endpoints.erase(self_); }

  void identify(JobId job, Epoch epoch, Incarnation incarnation) override {
    header_.job = job;
    header_.epoch = epoch;
    header_.incarnation = incarnation;
  }

  void send(PeerId to, const Message& message) override {
    ++header_.sequence;
    const std::vector<std::byte> frame = encode(header_, message);
    counters_.control_bytes_out += frame.size();
    if (InprocEndpoint* peer = find(to))
      peer->accept(self_, frame);
    else
      ++counters_.dropped[drop::no_route];
  }

  std::optional<Arrival> receive(Instant) override {
    if (arrivals_.empty()) return std::nullopt;
    Arrival arrival = std::move(arrivals_.front());
    arrivals_.pop_front();
    if (const auto* blob = std::get_if<BlobArrived>(&arrival)) fetching_.erase(blob->ref.digest);
    return arrival;
  }

  BlobRef offer(const Blob& blob) override {
    Offered& offered = offers_[blob.digest];
    offered.blob = blob;
    ++offered.times;
    return {blob.digest, blob.bytes().size(), {}};
  }
  void withdraw(const Digest& digest) override {
    const auto offered = offers_.find(digest);
    if (offered != offers_.end() && --offered->second.times == 0) offers_.erase(offered);
  }

  void fetch(PeerId from, const BlobRef& ref) override {
    if (!fetching_.insert(ref.digest).second) return;
    arrivals_.push_back(BlobArrived{from, ref, look_up(from, ref)});
  }

  TransportCounters counters() const override { return counters_; }

 private:
  InprocEndpoint* find(PeerId peer) const {
    const auto found = hub_->endpoints.find(peer);
    return found == hub_->endpoints.end() ? nullptr : found->second;
  }

  void accept(PeerId from, Bytes frame) {
    counters_.control_bytes_in += frame.size();
    Result<Decoded> decoded = decode(frame);
    if (!decoded.ok()) {
      ++counters_.dropped[decoded.error().message];
      return;
    }
    arrivals_.push_back(Received{from, decoded->header, std::get<Message>(std::move(decoded->content))});
  }

  Result<Blob> look_up(PeerId from, const BlobRef& ref) {
    const InprocEndpoint* peer = find(from);
    if (peer == nullptr) return fail(ExitCode::failed, "blob ", ref.digest, ": peer ", from, " is gone");
    const auto offered = peer->offers_.find(ref.digest);
    if (offered == peer->offers_.end())
      return fail(ExitCode::failed, "blob ", ref.digest, ": peer ", from, " does not offer it (any more)");
    if (offered->second.blob.bytes().size() != ref.size)
      return fail(ExitCode::failed, "blob ", ref.digest, " has ", offered->second.blob.bytes().size(),
                  " bytes where ", ref.size, " were announced");
    counters_.shared_bytes_in += ref.size;
    return offered->second.blob;
  }

  std::shared_ptr<InprocHub::State> hub_;
  PeerId self_;
  Header header_;
  std::deque<Arrival> arrivals_;
  struct Offered {
    Blob blob;
    int times = 0;
  };
  std::map<Digest, Offered> offers_;
  std::set<Digest> fetching_;
  TransportCounters counters_;
};

}  // namespace

InprocHub::InprocHub() : state_(std::make_shared<State>()) {}
InprocHub::~InprocHub() = default;
std::unique_ptr<Endpoint> InprocHub::make_coordinator() {
  return std::make_unique<InprocEndpoint>(state_, coordinator_peer);
}
std::unique_ptr<Endpoint> InprocHub::make_worker() {
  return std::make_unique<InprocEndpoint>(state_, PeerId{1, ++state_->workers});
}

}  // namespace tessera
