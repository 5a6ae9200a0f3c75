#include "eval/unigram.h"

#include <cmath>

#include "base/error.h"

namespace tessera {

UnigramBaseline::UnigramBaseline(const std::vector<std::uint64_t>& counts) {
  TESSERA_CHECK(!counts.empty());
  double total = static_cast<double>(counts.size());
  for (const std::uint64_t count : counts) total += static_cast<double>(count);
  nats_.reserve(counts.size());
  for (const std::uint64_t count : counts)
    nats_.push_back(std::log(total) - std::log(static_cast<double>(count) + 1));
}

double UnigramBaseline::nats(std::int64_t token) const {
  TESSERA_CHECK(token >= 0 && static_cast<std::size_t>(token) < nats_.size(), ": token ", token, ", vocab ",
                nats_.size());
  return nats_[static_cast<std::size_t>(token)];
}

double UnigramBaseline::nats(std::span<const std::int64_t> tokens) const {
  double sum = 0;
  for (const std::int64_t token : tokens) sum += nats(token);
  return sum;
}

}  // namespace tessera
