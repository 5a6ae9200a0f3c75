// What every collective back end is put through, rank by rank: fills, sums and broadcasts from a seed.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "comm/collective/collective.h"

namespace tessera::test {

/// What one rank has afterwards.
struct Outcome {
  std::vector<float> whole_f32;  ///< sum of small whole numbers: exact in any order
  std::vector<double> whole_f64;
  std::vector<float> real_f32;  ///< sum of reals: depends on the order within rounding
  std::vector<double> real_f64;
  std::vector<std::byte> sent;  ///< broadcast from the last rank
};

/// `count` values per sum; 0 is allowed.
inline Result<Outcome> exercise(Collective& group, std::uint64_t seed, std::size_t count) {
  Outcome out;
  for (std::size_t i = 0; i < count; ++i) {
    const auto bits = key_of({seed, static_cast<std::uint64_t>(group.rank()), i});
    out.whole_f32.push_back(static_cast<float>(bits % 2001) - 1000.0f);
    out.whole_f64.push_back(static_cast<double>(bits >> 24) - 5e11);
    out.real_f32.push_back(static_cast<float>(static_cast<double>(bits >> 11) / 9007199254740992.0 - 0.5));
    out.real_f64.push_back(static_cast<double>(bits >> 11) / 9007199254740992.0 - 0.5);
    out.sent.push_back(static_cast<std::byte>(bits));
  }
  TESSERA_TRY(group.all_reduce(std::span<float>(out.whole_f32)));
  TESSERA_TRY(group.all_reduce(std::span<double>(out.whole_f64)));
  TESSERA_TRY(group.barrier());
  TESSERA_TRY(group.broadcast(out.sent, group.size() - 1));
  TESSERA_TRY(group.all_reduce(std::span<float>(out.real_f32)));
  TESSERA_TRY(group.all_reduce(std::span<double>(out.real_f64)));
  return out;
}

}  // namespace tessera::test
