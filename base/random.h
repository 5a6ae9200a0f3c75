// Keyed randomness without state: every draw is a function of (seed, slot, step, purpose), so nothing has to
// be saved and a re-run of lost work draws the same numbers (reliability reference, section 5).
#pragma once
#include <cstdint>
#include <initializer_list>

namespace tessera {

/// SplitMix64's finaliser: a bijection of 64-bit words whose output bits all depend on all input bits.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Folds the parts of a key into one word: key_of({seed, slot, step, purpose}).
constexpr std::uint64_t key_of(std::initializer_list<std::uint64_t> parts) {
  std::uint64_t key = 0x7465737365726131ull;
  for (std::uint64_t part : parts) key = mix64(key ^ mix64(part));
  return key;
}

/// A small counter-based generator (SplitMix64) for simulation, tests and initial values. Satisfies
/// UniformRandomBitGenerator, but prefer its own members: the standard distributions differ between
/// libraries.
class KeyedRandom {
 public:
  using result_type = std::uint64_t;
  explicit KeyedRandom(std::uint64_t key) : state_(key) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~0ull; }
  result_type operator()() { return mix64(state_ += 0x9e3779b97f4a7c15ull); }
  std::uint64_t below(std::uint64_t bound);  ///< uniform in [0, bound), bound > 0, without bias
  double uniform();                          ///< in [0, 1), 53 bits
  double normal();                           ///< standard normal, Box-Muller, one value per call
  bool chance(double probability) { return uniform() < probability; }

 private:
  std::uint64_t state_;
};

/// A keyed permutation of [0, size): a four-round Feistel network with cycle walking. O(1) memory, so a data
/// order needs no shuffle buffer and position i can be asked for in any order.
class KeyedPermutation {
 public:
  KeyedPermutation(std::uint64_t key, std::uint64_t size);
  std::uint64_t operator()(std::uint64_t index) const;  ///< index < size
  std::uint64_t size() const { return size_; }

 private:
  std::uint64_t key_, size_, half_mask_;
  int half_bits_;
};

}  // namespace tessera
