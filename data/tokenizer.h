// Text to token ids and back. One file per tokenizer in data/tokenizers/. Torch-free.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/registry.h"

namespace tessera {

/// Loses nothing: decode(encode(text)) == text for any bytes. No token reaches beyond a line end, so a text
/// may be encoded in pieces of whole lines.
class Tokenizer {
 public:
  struct Context {
    std::string folder;      ///< where a trained model lies (prepared data folder)
    std::int64_t vocab = 0;  ///< wanted size; 0: the tokenizer's own
  };
  static constexpr const char* kind = "tokenizer";
  virtual ~Tokenizer() = default;
  /// Learns from training text and writes its model into the folder; nothing to do for "bytes".
  virtual Status train(std::string_view text) = 0;
  /// Reads the model from the folder.
  virtual Status load() = 0;
  virtual std::int64_t vocab() const = 0;
  /// Of all that decides what encode() gives; known after load().
  virtual Digest digest() const = 0;
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  /// The bytes that a token stands for, wherever it occurs; id must be in [0, vocab).
  virtual std::string_view surface(std::int32_t id) const = 0;
  /// The surfaces of the ids, joined.
  std::string decode(const std::vector<std::int32_t>& ids) const;
};

}  // namespace tessera
