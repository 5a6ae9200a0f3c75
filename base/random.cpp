#include "base/random.h"

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace tessera {

std::uint64_t KeyedRandom::below(std::uint64_t bound) {
  TESSERA_CHECK(bound > 0);
  const std::uint64_t limit = max() - max() % bound;  // a multiple of bound: reject the tail above it
  std::uint64_t draw;
  do draw = (*this)();
  while (draw >= limit);
  return draw % bound;
}

double KeyedRandom::uniform() {
  return static_cast<double>((*this)() >> 11) * 0x1.0p-53;
}

double KeyedRandom::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

KeyedPermutation::KeyedPermutation(std::uint64_t key, std::uint64_t size) : key_(key), size_(size) {
  TESSERA_CHECK(size > 0);
  int bits = 2;
  while (bits < 64 && (size - 1) >> bits != 0) ++bits;
  half_bits_ = (bits + 1) / 2;
  half_mask_ = (1ull << half_bits_) - 1;
}

std::uint64_t KeyedPermutation::operator()(std::uint64_t index) const {
  TESSERA_CHECK_LT(index, size_);
  std::uint64_t x = index;
  do {  // walks the cycle until it is back inside [0, size): under four steps on average
    std::uint64_t left = x >> half_bits_, right = x & half_mask_;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t next = left ^ (mix64(key_ ^ mix64(right + (round << 56))) & half_mask_);
      left = right;
      right = next;
    }
    x = (left << half_bits_) | right;
  } while (x >= size_);
  return x;
}

}  // namespace tessera
