// The unigram baseline: every token is predicted by how often it occurred in the training data, whatever
// stands before it. What a model must beat to have learnt anything from context. Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

class UnigramBaseline {
 public:
  /// Counts by token (DataSource::token_counts); the vocabulary is their number, which must not be 0.
  explicit UnigramBaseline(const std::vector<std::uint64_t>& counts);
  /// -ln p(token) with add-one smoothing: p = (count + 1) / (all counts + vocabulary).
  double nats(std::int64_t token) const;
  /// Sum over tokens (the targets of a batch).
  double nats(std::span<const std::int64_t> tokens) const;

 private:
  std::vector<double> nats_;  // by token
};

}  // namespace tessera
