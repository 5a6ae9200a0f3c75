#include "comm/message_codec.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <cstring>

#include "comm/drop_reasons.h"
#include "comm/message_checks.h"
#include "comm/messages.capnp.h"

namespace tessera {
namespace {

constexpr std::uint32_t protocol_number = 3;
// ---- plain parts, out and in. put(builder, value) fills a wire struct; get(reader) reads one ----

void put(wire::Bits128::Builder out, const Bits128& bits) {
  out.setHigh(bits.high);
  out.setLow(bits.low);
}
Bits128 get(wire::Bits128::Reader in) {
  return {in.getHigh(), in.getLow()};
}

kj::StringPtr text_out(const std::string& text) {
  return {text.c_str(), text.size()};
}
std::string get(capnp::Text::Reader in) {
  return {in.begin(), in.size()};
}

void put(wire::Header::Builder out, const Header& header) {
  put(out.initJob(), header.job);
  out.setEpoch(header.epoch.value);
  put(out.initIncarnation(), header.incarnation);
  out.setSequence(header.sequence);
}
Header get(wire::Header::Reader in) {
  return {get(in.getJob()), {in.getEpoch()}, get(in.getIncarnation()), in.getSequence()};
}

void put(wire::MergeKey::Builder out, const MergeKey& key) {
  out.setSlot(key.slot.value);
  out.setFragment(key.fragment.value);
  out.setVersion(key.version.value);
  out.setAttempt(key.attempt.value);
}
MergeKey get(wire::MergeKey::Reader in) {
  return {{in.getSlot()}, {in.getFragment()}, {in.getVersion()}, {in.getAttempt()}};
}

void put(wire::BlobRef::Builder out, const BlobRef& ref) {
  put(out.initDigest(), ref.digest);
  out.setSize(ref.size);
  out.setPath(text_out(ref.path));
}
BlobRef get(wire::BlobRef::Reader in) {
  return {get(in.getDigest()), in.getSize(), get(in.getPath())};
}

void put(wire::SlotLease::Builder out, SlotId slot, Attempt attempt) {
  out.setSlot(slot.value);
  out.setAttempt(attempt.value);
}

void put(capnp::List<wire::SlotLease>::Builder out, const std::vector<HeldSlot>& held) {
  for (unsigned i = 0; i < held.size(); ++i) put(out[i], held[i].slot, held[i].attempt);
}
std::vector<HeldSlot> get(capnp::List<wire::SlotLease>::Reader in) {
  std::vector<HeldSlot> held;
  for (wire::SlotLease::Reader lease : in) held.push_back({{lease.getSlot()}, {lease.getAttempt()}});
  return held;
}

void put(wire::FragmentHead::Builder out, const FragmentHead& head) {
  out.setFragment(head.fragment.value);
  out.setVersion(head.version.value);
  put(out.initParameters(), head.parameters);
  put(out.initStateHash(), head.state_hash);
  if (head.fast) put(out.initFast(), *head.fast);
  if (head.update) put(out.initUpdate(), head.update->blob);
  put(out.initBase(), head.update ? head.update->base : Digest());
}
FragmentHead get(wire::FragmentHead::Reader in) {
  FragmentHead head{{in.getFragment()}, {in.getVersion()}, get(in.getParameters()), get(in.getStateHash())};
  if (in.hasFast()) head.fast = get(in.getFast());
  if (in.hasUpdate()) head.update = {get(in.getUpdate()), get(in.getBase())};
  return head;
}

void put(wire::Work::Builder out, const Work& work) {
  out.setSteps(work.steps);
  out.setUnits(work.units);
  out.setLossSum(work.loss_sum);
  out.setLossWeight(work.loss_weight);
  out.setFirstSample(work.first_sample);
  out.setEndSample(work.end_sample);
  out.setComputeSeconds(work.compute_seconds);
  out.setEncodeSeconds(work.encode_seconds);
  out.setWaitSeconds(work.wait_seconds);
  out.setGradNorm(work.grad_norm);
  out.setFlops(work.flops);
  out.setFlopsUncut(work.flops_uncut);
}
Work get(wire::Work::Reader in) {
  return {in.getSteps(),       in.getUnits(),     in.getLossSum(),        in.getLossWeight(),
          in.getFirstSample(), in.getEndSample(), in.getComputeSeconds(), in.getEncodeSeconds(),
          in.getWaitSeconds(), in.getGradNorm(),  in.getFlops(),          in.getFlopsUncut()};
}

void put(capnp::List<wire::ParamRows>::Builder out, const RowSet& set) {
  unsigned i = 0;
  for (const auto& [name, ranges] : set) {
    wire::ParamRows::Builder entry = out[i++];
    entry.setName(text_out(name));
    auto rows = entry.initRows(ranges.size());
    for (unsigned r = 0; r < ranges.size(); ++r) {
      rows[r].setBegin(ranges[r].begin);
      rows[r].setEnd(ranges[r].end);
    }
  }
}
// The same name twice would silently lose the first entry, so it is a problem here and not in problem_of.
RowSet get(capnp::List<wire::ParamRows>::Reader in, const char*& problem) {
  RowSet set;
  for (wire::ParamRows::Reader entry : in) {
    std::vector<Rows> ranges;
    ranges.reserve(entry.getRows().size());
    for (wire::Rows::Reader rows : entry.getRows()) ranges.push_back({rows.getBegin(), rows.getEnd()});
    if (!set.emplace(get(entry.getName()), std::move(ranges)).second) problem = drop::range;
  }
  return set;
}

// ---- one message each ----

struct Writer {
  wire::Frame::Builder frame;

  void operator()(const Hello& m) {
    auto out = frame.initHello();
    out.setBuild(text_out(m.build));
    out.setHost(text_out(m.host));
    out.setPid(m.pid);
    out.setCapacity(m.capacity);
    put(out.initRecipe(), m.recipe);
    put(out.initHeld(m.held.size()), m.held);
  }
  void operator()(const Ready& m) {
    auto out = frame.initReady();
    put(out.initData(), m.data);
    out.setNumerics(text_out(m.numerics));
  }
  void operator()(const Heartbeat& m) {
    auto out = frame.initHeartbeat();
    out.setSteps(m.steps);
    put(out.initHeld(m.held.size()), m.held);
    auto heads = out.initHeads(m.heads.size());
    for (unsigned i = 0; i < m.heads.size(); ++i) {
      heads[i].setFragment(m.heads[i].fragment.value);
      heads[i].setVersion(m.heads[i].version.value);
    }
  }
  void operator()(const Offer& m) {
    auto out = frame.initOffer();
    put(out.initKey(), m.key);
    put(out.initContribution(), m.contribution);
    put(out.initSlotState(), m.slot_state);
    if (m.slot_state_blob) put(out.initSlotStateBlob(), *m.slot_state_blob);
    put(out.initWork(), m.work);
  }
  void operator()(const Evaluated& m) {
    auto out = frame.initEvaluated();
    out.setVersion(m.version.value);
    out.setLossSum(m.loss_sum);
    out.setWeight(m.weight);
    out.setBytes(m.bytes);
    out.setWords(m.words);
  }
  void operator()(const GrantFailed& m) {
    auto out = frame.initGrantFailed();
    out.setSlot(m.slot.value), out.setAttempt(m.attempt.value);
    out.setReason(text_out(m.reason));
  }
  void operator()(const Leave& m) { frame.initLeave().setReason(text_out(m.reason)); }
  void operator()(const Welcome& m) {
    auto out = frame.initWelcome();
    out.setRecipe(text_out(m.recipe));
    out.setLeaseMs(m.lease_ms);
  }
  void operator()(const Refused& m) { verdict(frame.initRefused(), m.reason, m.code); }
  void operator()(const Grant& m) {
    auto out = frame.initGrant();
    out.setSlot(m.slot.value), out.setAttempt(m.attempt.value);
    put(out.initOwned(m.owned.size()), m.owned);
    auto heads = out.initHeads(m.heads.size());
    for (unsigned i = 0; i < m.heads.size(); ++i) put(heads[i], m.heads[i]);
    put(out.initSlotState(), m.slot_state);
    if (m.slot_state_blob) put(out.initSlotStateBlob(), *m.slot_state_blob);
    out.setEvaluate(m.evaluate), out.setSaveState(m.save_state), out.setSteps(m.steps);
  }
  void operator()(const Publish& m) {
    auto out = frame.initPublish();
    put(out.initHead(), m.head);
    out.setLast(m.last);
    out.setEvaluate(m.evaluate);
    out.setSaveState(m.save_state);
  }
  void operator()(const Taken& m) {
    auto out = frame.initTaken();
    put(out.initKey(), m.key);
    put(out.initDigest(), m.digest);
    out.setSteps(m.steps);
  }
  void operator()(const Rejected& m) {
    auto out = frame.initRejected();
    put(out.initKey(), m.key);
    out.setTensor(text_out(m.tensor));
    out.setReason(text_out(m.reason));
    out.setRetry(m.retry);
  }
  void operator()(const Revoke& m) { put(frame.initRevoke(), m.slot, m.attempt); }
  void operator()(const HeartbeatAck& m) { frame.initHeartbeatAck().setSayHello(m.say_hello); }
  void operator()(const Stop& m) { verdict(frame.initStop(), m.reason, m.code); }

  static void verdict(wire::Verdict::Builder out, const std::string& reason, std::int32_t code) {
    out.setReason(text_out(reason));
    out.setCode(code);
  }
};

Hello read(wire::Hello::Reader in) {
  return {get(in.getBuild()), get(in.getHost()),   in.getPid(),
          in.getCapacity(),   get(in.getRecipe()), get(in.getHeld())};
}
Heartbeat read(wire::Heartbeat::Reader in) {
  Heartbeat m{in.getSteps(), get(in.getHeld()), {}};
  for (wire::KnownVersion::Reader head : in.getHeads())
    m.heads.push_back({{head.getFragment()}, {head.getVersion()}});
  return m;
}
Offer read(wire::Offer::Reader in) {
  Offer m{get(in.getKey()), get(in.getContribution()), get(in.getSlotState()), {}, get(in.getWork())};
  if (in.hasSlotStateBlob()) m.slot_state_blob = get(in.getSlotStateBlob());
  return m;
}
Evaluated read(wire::Evaluated::Reader in) {
  return {{in.getVersion()}, in.getLossSum(), in.getWeight(), in.getBytes(), in.getWords()};
}
Grant read(wire::Grant::Reader in, const char*& problem) {
  Grant m;
  m.slot = {in.getSlot()};
  m.attempt = {in.getAttempt()};
  m.owned = get(in.getOwned(), problem);
  for (wire::FragmentHead::Reader head : in.getHeads()) m.heads.push_back(get(head));
  m.slot_state = get(in.getSlotState());
  if (in.hasSlotStateBlob()) m.slot_state_blob = get(in.getSlotStateBlob());
  m.evaluate = in.getEvaluate();
  m.save_state = in.getSaveState();
  m.steps = in.getSteps();
  return m;
}
GrantFailed read(wire::GrantFailed::Reader in) {
  return {{in.getSlot()}, {in.getAttempt()}, get(in.getReason())};
}
Publish read(wire::Publish::Reader in) {
  return {get(in.getHead()), in.getLast(), in.getEvaluate(), in.getSaveState()};
}
Rejected read(wire::Rejected::Reader in) {
  return {get(in.getKey()), get(in.getTensor()), get(in.getReason()), in.getRetry()};
}

ChunkRequest read(wire::ChunkRequest::Reader in) {
  return {get(in.getBlob()), in.getIndex()};
}
ChunkHeader read(wire::ChunkHeader::Reader in) {
  return {get(in.getBlob()), in.getIndex(), in.getKnown(), in.getSize(), in.getChecksum()};
}

// Nothing for a kind that this build does not know.
std::optional<Content> read(wire::Frame::Reader in, const char*& problem) {
  // clang-format off
  switch (in.which()) {
    case wire::Frame::HELLO: return Message(read(in.getHello()));
    case wire::Frame::READY: return Message(Ready{get(in.getReady().getData()), get(in.getReady().getNumerics())});
    case wire::Frame::HEARTBEAT: return Message(read(in.getHeartbeat()));
    case wire::Frame::OFFER: return Message(read(in.getOffer()));
    case wire::Frame::EVALUATED: return Message(read(in.getEvaluated()));
    case wire::Frame::GRANT_FAILED: return Message(read(in.getGrantFailed()));
    case wire::Frame::LEAVE: return Message(Leave{get(in.getLeave().getReason())});
    case wire::Frame::WELCOME: return Message(Welcome{get(in.getWelcome().getRecipe()), in.getWelcome().getLeaseMs()});
    case wire::Frame::REFUSED: return Message(Refused{get(in.getRefused().getReason()), in.getRefused().getCode()});
    case wire::Frame::GRANT: return Message(read(in.getGrant(), problem));
    case wire::Frame::PUBLISH: return Message(read(in.getPublish()));
    case wire::Frame::TAKEN: return Message(Taken{get(in.getTaken().getKey()), get(in.getTaken().getDigest()), in.getTaken().getSteps()});
    case wire::Frame::REJECTED: return Message(read(in.getRejected()));
    case wire::Frame::REVOKE: return Message(Revoke{{in.getRevoke().getSlot()}, {in.getRevoke().getAttempt()}});
    case wire::Frame::HEARTBEAT_ACK: return Message(HeartbeatAck{in.getHeartbeatAck().getSayHello()});
    case wire::Frame::STOP: return Message(Stop{get(in.getStop().getReason()), in.getStop().getCode()});
    case wire::Frame::CHUNK_REQUEST: return read(in.getChunkRequest());
    case wire::Frame::CHUNK_HEADER: return read(in.getChunkHeader());
  }
  // clang-format on
  return std::nullopt;
}

wire::Frame::Builder start(capnp::MallocMessageBuilder& builder) {
  wire::Frame::Builder frame = builder.initRoot<wire::Frame>();
  frame.setProtocol(protocol_number);
  return frame;
}
std::vector<std::byte> finish(capnp::MessageBuilder& builder) {
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  const auto bytes = words.asBytes();
  std::vector<std::byte> frame(bytes.size());
  std::memcpy(frame.data(), bytes.begin(), bytes.size());
  return frame;
}

bool may_be_large(const Message& message) {
  return std::holds_alternative<Welcome>(message) || std::holds_alternative<Grant>(message);
}

Error refusal(const char* word) {
  return {ExitCode::failed, word};
}

// Words are aligned and whole here; throws kj::Exception on anything malformed.
Result<Decoded> decode_words(kj::ArrayPtr<const capnp::word> words) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = std::max<std::uint64_t>(1024, 8 * words.size());
  options.nestingLimit = 16;
  capnp::FlatArrayMessageReader reader(words, options);
  if (reader.getEnd() != words.end()) return refusal(drop::malformed);
  const wire::Frame::Reader frame = reader.getRoot<wire::Frame>();
  if (frame.getProtocol() != protocol_number) return refusal(drop::protocol);
  const char* problem = nullptr;
  std::optional<Content> content = read(frame, problem);
  if (!content) return refusal(drop::kind);
  if (const Message* message = std::get_if<Message>(&*content)) {
    if (problem == nullptr) problem = problem_of(*message);
    if (problem == nullptr && words.size() * sizeof(capnp::word) > max_frame_bytes && !may_be_large(*message))
      problem = drop::too_large;
  }
  if (problem != nullptr) return refusal(problem);
  return Decoded{get(frame.getHeader()), *std::move(content)};
}

}  // namespace

std::vector<std::byte> encode(const Header& header, const Message& message) {
  capnp::MallocMessageBuilder builder;
  wire::Frame::Builder frame = start(builder);
  put(frame.initHeader(), header);
  const Message tidy = tidied(message);
  if (const char* problem = problem_of(tidy); problem != nullptr)
    TESSERA_CHECK(false, message_name(message), " that no peer would accept: ", problem);
  std::visit(Writer{frame}, tidy);
  std::vector<std::byte> bytes = finish(builder);
  TESSERA_CHECK_LE(bytes.size(), may_be_large(message) ? max_large_frame_bytes : max_frame_bytes);
  return bytes;
}

std::vector<std::byte> encode(const ChunkRequest& request) {
  capnp::MallocMessageBuilder builder;
  wire::Frame::Builder frame = start(builder);
  auto out = frame.initChunkRequest();
  put(out.initBlob(), request.blob);
  out.setIndex(request.index);
  return finish(builder);
}

std::vector<std::byte> encode(const ChunkHeader& header) {
  capnp::MallocMessageBuilder builder;
  wire::Frame::Builder frame = start(builder);
  auto out = frame.initChunkHeader();
  put(out.initBlob(), header.blob);
  out.setIndex(header.index);
  out.setKnown(header.known);
  out.setSize(header.size);
  out.setChecksum(header.checksum);
  return finish(builder);
}

Result<Decoded> decode(Bytes frame) {
  if (frame.size() > max_large_frame_bytes) return refusal(drop::too_large);
  if (frame.empty() || frame.size() % sizeof(capnp::word) != 0) return refusal(drop::ragged);
  // Received buffers are often not aligned to words, and reading words from them would be undefined.
  kj::Array<capnp::word> words = kj::heapArray<capnp::word>(frame.size() / sizeof(capnp::word));
  std::memcpy(static_cast<void*>(words.begin()), frame.data(), frame.size());
  try {
    return decode_words(words);
  } catch (const kj::Exception&) {
    return refusal(drop::malformed);
  }
}

}  // namespace tessera
