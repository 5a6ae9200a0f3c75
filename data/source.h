// Where training batches come from. A source answers for any position of a slot's stream in any order; it
// remembers nothing, so a re-run of lost work reads the same samples. One file per source in data/sources/.
// Torch-free.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/registry.h"
#include "base/tensor.h"

namespace tessera {

/// Named arrays ("tokens" [B,T] int64, "targets" [B,T] int64) and what they weigh.
struct Batch {
  TensorMap tensors;
  double units = 0;             ///< tokens, frames or samples, as DataSource::unit() names them
  double bytes = 0, words = 0;  ///< of the text behind the targets (held-out batches; 0 where senseless)
};

class DataSource {
 public:
  struct Context {
    std::string path;  ///< folder with prepared data (token files)
    std::uint64_t seed = 0;
    std::int32_t slots = 1;
    std::int64_t context = 0;  ///< T, from the model
  };
  static constexpr const char* kind = "data source";
  virtual ~DataSource() = default;
  /// Opens and verifies the data; nothing else may be called before it succeeded. Errors name the file or the
  /// numbers.
  virtual Status open() = 0;
  virtual std::string unit() const = 0;       ///< "tokens"
  virtual std::int64_t vocab() const = 0;     ///< 0 where senseless
  virtual std::uint64_t samples() const = 0;  ///< in one epoch, all slots together
  virtual Digest digest() const = 0;          ///< of the data's content
  /// Samples [first, first + count) of a slot's endless stream: a keyed permutation per epoch, slots disjoint
  /// within an epoch.
  virtual Batch train(SlotId slot, std::uint64_t first, std::uint64_t count) const = 0;
  /// Held-out batch `index` of at most `count` samples, in reading order; nothing at the end.
  virtual std::optional<Batch> held_out(std::uint64_t index, std::uint64_t count) const = 0;
  /// How often each token occurs in the training data, for the unigram baseline; empty where senseless.
  virtual std::vector<std::uint64_t> token_counts() const { return {}; }
};

}  // namespace tessera
