// Token ids on disk, memory-mapped: one array of u16 or u32 with a header that says what it is made of. The
// same container holds the bytes and words behind each held-out token.
//
// Layout, little endian: "TESSTOK\n" (8 bytes), version u32, bytes per token u32, vocab u64, count u64,
// digest of the text (16), of the tokenizer (16), of the token bytes (16), zeros up to byte 120, xxh3-64 of
// bytes [0, 120), then the tokens from byte 128.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/tensor.h"

namespace tessera {

/// What the tokens of a file are made of.
struct TokenFileInfo {
  std::uint64_t vocab = 0;  ///< every token is below it; below 65,537 the file holds u16
  std::uint64_t count = 0;  ///< tokens
  Digest text;              ///< of the text that was encoded
  Digest tokenizer;         ///< Tokenizer::digest()
  Digest content;           ///< of the token bytes as they lie in the file
};

/// Read-only view of a token file; copies share the mapping.
class TokenFile {
 public:
  /// Maps the file and checks header and length; an Error names the file and what is wrong with it.
  static Result<TokenFile> open(const std::string& path);
  /// Reads all tokens once and compares them with the header's digest.
  Status verify() const;
  const TokenFileInfo& info() const { return info_; }
  const std::string& path() const { return path_; }
  std::uint64_t count() const { return info_.count; }
  std::int64_t operator[](std::uint64_t index) const {
    return width_ == 2 ? reinterpret_cast<const std::uint16_t*>(tokens_)[index]
                       : reinterpret_cast<const std::uint32_t*>(tokens_)[index];
  }
  /// Copies tokens [first, first + out.size()); they must lie in the file.
  void read(std::uint64_t first, std::span<std::int64_t> out) const;
  /// Sum of the values [first, first + count).
  std::uint64_t sum(std::uint64_t first, std::uint64_t count) const;

 private:
  std::string path_;
  TokenFileInfo info_;
  std::shared_ptr<const void> mapping_;
  const std::byte* tokens_ = nullptr;
  std::uint64_t width_ = 2;
};

/// Collects tokens in memory and writes them as a file that appears whole or not at all (tmp, fsync, rename).
class TokenFileWriter {
 public:
  explicit TokenFileWriter(std::uint64_t vocab);
  void append(std::span<const std::int32_t> tokens);
  std::uint64_t count() const { return bytes_.size() / width_; }
  Status write(const std::string& path, const Digest& text, const Digest& tokenizer) const;

 private:
  std::uint64_t vocab_, width_;
  std::vector<std::byte> bytes_;
};

}  // namespace tessera
