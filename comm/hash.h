// xxh3 digests of bytes and of named tensors: checksums of chunks, shards and contributions, and the state
// hash of a run.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/tensor.h"

namespace tessera {

std::uint64_t checksum64(Bytes bytes);  ///< xxh3-64, of bulk chunks
Digest digest_of(Bytes bytes);          ///< xxh3-128
Digest digest_of(std::string_view text);

/// xxh3-128 of a stream of bytes.
class Hasher {
 public:
  Hasher();
  Hasher(Hasher&&) noexcept;
  ~Hasher();
  Hasher& add(Bytes bytes);
  Hasher& add(std::string_view text);
  Hasher& add(std::uint64_t word);    ///< 8 bytes, little endian
  Hasher& add(const Digest& digest);  ///< high then low word, little endian each
  Digest digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Digest of one tensor: over name, 0 byte, dtype name, 0 byte, rank and dimensions as 8-byte little-endian
/// words, bytes.
Digest tensor_digest(const std::string& name, const HostTensor& tensor);
/// The same up to the bytes, which are to be added.
Hasher tensor_hasher(const std::string& name, const HostTensor& tensor);
/// Digest of a set of tensors: xxh3-128 over the tensors' digests in order of their names. Shards compose,
/// since each tensor's digest stands alone.
Digest state_digest(const TensorMap& tensors);
using TensorDigests = std::map<std::string, Digest>;
Digest state_digest(const TensorDigests& digests);

}  // namespace tessera
