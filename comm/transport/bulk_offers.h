// The sender's side of the bulk path: what is offered, and the answer to a request.
#pragma once
#include <map>
#include <utility>

#include "comm/blob.h"
#include "comm/transport/bulk_frames.h"

namespace tessera {

class BulkOffers {
 public:
  void add(const Blob& blob) { blobs_[blob.digest] = blob; }
  void remove(const Digest& digest) { blobs_.erase(digest); }

  /// Header and bytes of a chunk; the bytes share the blob's memory.
  std::pair<ChunkHeader, Buffer> answer(const ChunkRequest& request) const {
    ChunkHeader header{request.blob, request.index};
    const auto found = blobs_.find(request.blob);
    if (found == blobs_.end()) return {header, {}};
    const Buffer& whole = found->second.buffer;
    if (request.index >= chunks_of(whole.bytes.size())) return {header, {}};
    const std::uint64_t size = chunk_size(whole.bytes.size(), request.index);
    Buffer chunk{whole.keep, whole.bytes.subspan(request.index * chunk_bytes, size)};
    header.known = true;
    header.size = size;
    header.checksum = checksum64(chunk.bytes);
    return {header, std::move(chunk)};
  }

 private:
  std::map<Digest, Blob> blobs_;
};

}  // namespace tessera
