// Identities: distinct types, so that a slot is never passed where a version is meant, and 128-bit digests
// and tokens.
#pragma once
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

namespace tessera {

template <class Tag, class Rep>
struct Id {
  Rep value{};
  constexpr auto operator<=>(const Id&) const = default;
  friend std::ostream& operator<<(std::ostream& out, Id id) { return out << +id.value; }
};
using SlotId = Id<struct SlotTag, std::int32_t>;          ///< logical seat 0..slots-1
using FragmentId = Id<struct FragmentTag, std::int32_t>;  ///< what is synchronised together; DiLoCo has one
using Version = Id<struct VersionTag, std::int64_t>;      ///< merges of a fragment committed so far
using Epoch = Id<struct EpochTag, std::uint64_t>;         ///< generation of the coordinator process
using Attempt = Id<struct AttemptTag, std::int32_t>;  ///< lease number of a slot: a re-run gets the next one

/// 128 bits: an xxh3-128 digest, a job id or the incarnation of a process.
struct Bits128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  constexpr auto operator<=>(const Bits128&) const = default;
  bool is_zero() const { return high == 0 && low == 0; }
  std::string hex() const;  ///< 32 lower-case digits, high word first
  static std::optional<Bits128> from_hex(std::string_view text);
  friend std::ostream& operator<<(std::ostream& out, const Bits128& bits) { return out << bits.hex(); }
};
using Digest = Bits128;
using JobId = Bits128;
using Incarnation =
    Bits128;  ///< random per process start, so a restarted process is never taken for the old one

/// Fresh random 128 bits from the operating system.
Bits128 random_bits128();

}  // namespace tessera

template <class Tag, class Rep>
struct std::hash<tessera::Id<Tag, Rep>> {
  std::size_t operator()(tessera::Id<Tag, Rep> id) const { return std::hash<Rep>()(id.value); }
};
template <>
struct std::hash<tessera::Bits128> {
  std::size_t operator()(const tessera::Bits128& bits) const {
    return bits.high ^ (bits.low * 0x9e3779b97f4a7c15ull);
  }
};
