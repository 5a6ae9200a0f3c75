// Whether numbers in fp32 are all finite, at the speed of memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/tensor.h"

namespace tessera {

/// Takes every four bytes, from the first one on, for a number in fp32: infinities and NaNs are those whose
/// exponent is all ones. What is left over at the end is no number.
inline bool all_finite(Bytes numbers) {
  // Adding one to an exponent of all ones carries into the sign, which is cleared before.
  typedef std::uint32_t Words __attribute__((vector_size(16)));
  constexpr std::uint32_t exponent = 0x7f800000u, one = 0x00800000u, sign = 0x80000000u;
  constexpr std::size_t lanes = sizeof(Words) / sizeof(float);
  const std::byte* at = numbers.data();
  std::size_t left = numbers.size() / sizeof(float);
  const auto carries_at = [&at, exponent, one](std::size_t i) {
    Words words;
    std::memcpy(&words, at + i * sizeof words, sizeof words);
    return (words & exponent) + one;
  };
  Words a = {}, b = {}, c = {}, d = {};  // none waits for another
  for (; left >= 4 * lanes; left -= 4 * lanes, at += 4 * sizeof(Words))
    a |= carries_at(0), b |= carries_at(1), c |= carries_at(2), d |= carries_at(3);
  a |= b | c | d;
  std::uint32_t carried = 0;
  for (std::size_t lane = 0; lane < lanes; ++lane) carried |= a[lane];
  for (; left > 0; --left, at += sizeof(float)) {
    std::uint32_t word;
    std::memcpy(&word, at, sizeof word);
    carried |= (word & exponent) + one;
  }
  return (carried & sign) == 0;
}

}  // namespace tessera
