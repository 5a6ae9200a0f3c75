// A blob: immutable bytes known by their digest (parameters, a contribution, a slot state), and the reference
// that control messages carry in their place.
#pragma once
#include <string>

#include "base/ids.h"
#include "base/tensor.h"
#include "comm/hash.h"

namespace tessera {

struct Blob {
  Buffer buffer;
  Digest digest;
  Blob() = default;
  explicit Blob(Buffer bytes) : buffer(std::move(bytes)), digest(digest_of(Bytes(buffer.bytes))) {}
  /// `known` is the digest of these bytes.
  Blob(Buffer bytes, const Digest& known) : buffer(std::move(bytes)), digest(known) {}
  Bytes bytes() const { return buffer.bytes; }
};

struct BlobRef {
  Digest digest;
  std::uint64_t size = 0;
  std::string path;  ///< shared-memory file that a receiver on the same host may map instead of fetching; may
                     ///< be empty
  auto operator<=>(const BlobRef&) const = default;
};

}  // namespace tessera
