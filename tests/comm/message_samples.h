// Seeded random messages of every kind, for the tests of what carries them.
#pragma once
#include <limits>

#include "base/random.h"
#include "comm/messages.h"

namespace tessera::test {

class MessageSamples {
 public:
  static constexpr std::size_t kinds = std::variant_size_v<Message>;
  explicit MessageSamples(std::uint64_t seed) : random_(seed) {}

  /// A message of the given kind (index into Message).
  Message of(std::size_t kind) {
    switch (kind) {
      case 0:
        return Hello{text(40), text(20), integer(1 << 22), int32(64), bits(), held()};
      case 1:
        return Ready{bits(), text(200)};
      case 2:
        return Heartbeat{random_(), held(), known()};
      case 3:
        return Offer{key(), blob(), bits(), maybe_blob(), work()};
      case 4:
        return Evaluated{version(), any(), amount(), amount(), amount()};
      case 5:
        return GrantFailed{slot(), attempt(), text(100)};
      case 6:
        return Leave{text(100)};
      case 7:
        return Welcome{text(3000), integer(1 << 20)};
      case 8:
        return Refused{text(100), int32(256)};
      case 9:
        return grant();
      case 10:
        return Publish{head(), flag(), flag(), flag()};
      case 11:
        return Taken{key(), bits(), integer(1000)};
      case 12:
        return Rejected{key(), text(60), text(100), flag()};
      case 13:
        return Revoke{slot(), attempt()};
      case 14:
        return HeartbeatAck{flag()};
      case 15:
        return Stop{text(100), int32(256)};
    }
    TESSERA_CHECK(false, "a new message needs a sample: ", kind);
    return {};
  }
  Header header() { return {bits(), {random_()}, bits(), random_()}; }
  BlobRef blob() {
    return {bits(), random_.below(1 << 30), flag() ? "/dev/shm/tessera-1/" + bits().hex() : ""};
  }

 private:
  std::int64_t integer(std::uint64_t bound) { return static_cast<std::int64_t>(random_.below(bound)); }
  std::int32_t int32(std::uint64_t bound) { return static_cast<std::int32_t>(random_.below(bound)); }
  bool flag() { return random_.chance(0.5); }
  Bits128 bits() { return {random_(), random_()}; }
  SlotId slot() { return {int32(1000)}; }
  Attempt attempt() { return {int32(1000)}; }
  Version version() { return {integer(1ull << 40)}; }
  FragmentId fragment() { return {int32(8)}; }
  MergeKey key() { return {slot(), fragment(), version(), attempt()}; }
  double amount() { return random_.uniform() * 1e9; }
  double any() { return flag() ? random_.normal() : std::numeric_limits<double>::infinity(); }
  std::string text(std::size_t most) {
    const std::size_t length = random_.below(most + 1);
    std::string made;
    for (std::size_t i = 0; i < length; ++i)
      made += random_.chance(0.02) ? "\xc3\xa9" : std::string(1, char('!' + int32(90)));
    return made;
  }
  std::vector<HeldSlot> held() {
    std::vector<HeldSlot> made(random_.below(5));
    for (HeldSlot& each : made) each = {slot(), attempt()};
    return made;
  }
  std::vector<KnownVersion> known() {
    std::vector<KnownVersion> made(random_.below(4));
    for (KnownVersion& each : made) each = {fragment(), version()};
    return made;
  }
  std::optional<BlobRef> maybe_blob() { return flag() ? std::optional(blob()) : std::nullopt; }
  FragmentHead head() {
    FragmentHead head{fragment(), version(), blob(), bits(), maybe_blob()};
    if (const auto update = maybe_blob()) head.update = {*update, bits()};
    return head;
  }
  Work work() {
    Work work{random_(), amount(), any(), amount(), random_.below(1000), 1000 + random_.below(1000)};
    work.compute_seconds = amount(), work.encode_seconds = amount(), work.wait_seconds = amount();
    work.grad_norm = any();
    work.flops = amount(), work.flops_uncut = amount();
    return work;
  }
  Grant grant() {
    Grant made;
    made.slot = slot(), made.attempt = attempt();
    for (std::uint64_t i = random_.below(6); i > 0; --i) {
      std::vector<Rows>& rows = made.owned["blocks." + std::to_string(i) + ".mlp.up"];
      std::int64_t at = 0;
      for (std::uint64_t r = random_.below(4); r > 0; --r) {
        const std::int64_t begin = at + integer(100), end = begin + 1 + integer(100);
        rows.push_back({begin, end});
        at = end + 1;
      }
    }
    for (std::uint64_t i = random_.below(3); i > 0; --i) made.heads.push_back(head());
    made.slot_state = bits(), made.slot_state_blob = maybe_blob();
    made.evaluate = flag(), made.save_state = flag(), made.steps = integer(1000);
    return made;
  }

  KeyedRandom random_;
};

}  // namespace tessera::test
