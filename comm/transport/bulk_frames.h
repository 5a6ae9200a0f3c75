// The two frames of the bulk path. They name a blob by its digest, so nothing about them can be stale and
// they need no header.
#pragma once
#include <algorithm>
#include <cstdint>

#include "base/ids.h"

namespace tessera {

inline constexpr std::uint64_t chunk_bytes = 256 << 10;

struct ChunkRequest {  ///< "send me bytes [index * chunk_bytes, ...) of this blob"
  Digest blob;
  std::uint64_t index = 0;
  auto operator<=>(const ChunkRequest&) const = default;
};
struct ChunkHeader {  ///< the answer; the bytes follow as a raw part
  Digest blob;
  std::uint64_t index = 0;
  bool known = false;  ///< false: not offered (any more), or no such chunk; no bytes follow
  std::uint64_t size = 0;
  std::uint64_t checksum = 0;  ///< xxh3-64 of the bytes
  auto operator<=>(const ChunkHeader&) const = default;
};

inline std::uint64_t chunks_of(std::uint64_t size) {
  return size / chunk_bytes + (size % chunk_bytes != 0);
}
inline std::uint64_t chunk_size(std::uint64_t size, std::uint64_t index) {
  return std::min(chunk_bytes, size - index * chunk_bytes);
}

}  // namespace tessera
