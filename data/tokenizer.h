// Text to token ids and back. One file per tokenizer in data/tokenizers/. Torch-free.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/registry.h"

namespace tessera {

class Tokenizer {
 public:
  struct Context {
    std::string folder;        ///< where a trained model lies (prepared data folder)
    std::int64_t vocab = 0;    ///< wanted size; 0: the tokenizer's own
  };
  static constexpr const char* kind = "tokenizer";
  virtual ~Tokenizer() = default;
  /// Learns from training text and writes its model into the folder; nothing to do for "bytes".
  virtual Status train(std::string_view text) = 0;
  /// Reads the model from the folder.
  virtual Status load() = 0;
  virtual std::int64_t vocab() const = 0;
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  virtual std::string decode(const std::vector<std::int32_t>& ids) const = 0;
};

}  // namespace tessera
