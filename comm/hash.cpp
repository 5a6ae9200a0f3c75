#include "comm/hash.h"

#include <bit>

// The library chooses the instruction set at run time: of blobs that are hashed while they are in the cache,
// the widest vectors take half of the time.
#include <xxhash.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>
#endif

namespace tessera {
static_assert(std::endian::native == std::endian::little, "digests are defined over little-endian words");

namespace {

// The library's widest code (0.8.1) leaves the upper halves of the vector registers in use, and what comes
// after it in this thread, and in threads that it starts, is slower for that: a loop of SSE2 took 3.4 times
// as long.
void leave_wide_registers() {
#if defined(__x86_64__)
  static const bool has_them = __builtin_cpu_supports("avx");
  if (has_them) asm volatile("vzeroupper");  // leaves the lower halves, all that this file uses, alone
#endif
}

}  // namespace

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(state_->xxh);
}
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher::~Hasher() = default;
Hasher& Hasher::add(Bytes bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
  leave_wide_registers();
  return *this;
}
Hasher& Hasher::add(std::string_view text) {
  return add(std::as_bytes(std::span(text)));
}
Hasher& Hasher::add(std::uint64_t word) {
  return add(std::as_bytes(std::span(&word, 1)));
}
Hasher& Hasher::add(const Digest& digest) {
  return add(digest.high).add(digest.low);
}
Digest Hasher::digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  leave_wide_registers();
  return {hash.high64, hash.low64};
}

std::uint64_t checksum64(Bytes bytes) {
  const XXH64_hash_t hash = XXH3_64bits(bytes.data(), bytes.size());
  leave_wide_registers();
  return hash;
}
Digest digest_of(Bytes bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  leave_wide_registers();
  return {hash.high64, hash.low64};
}
Digest digest_of(std::string_view text) {
  return digest_of(std::as_bytes(std::span(text)));
}

Hasher tensor_hasher(const std::string& name, const HostTensor& tensor) {
  Hasher hasher;
  hasher.add(name)
      .add(std::string_view("\0", 1))
      .add(safetensors_name(tensor.dtype))
      .add(std::string_view("\0", 1));
  hasher.add(static_cast<std::uint64_t>(tensor.shape.size()));
  for (std::int64_t dimension : tensor.shape) hasher.add(static_cast<std::uint64_t>(dimension));
  return hasher;
}

Digest tensor_digest(const std::string& name, const HostTensor& tensor) {
  return tensor_hasher(name, tensor).add(tensor.bytes()).digest();
}

Digest state_digest(const TensorMap& tensors) {
  TensorDigests digests;
  for (const auto& [name, tensor] : tensors) digests.emplace(name, tensor_digest(name, tensor));
  return state_digest(digests);
}

Digest state_digest(const TensorDigests& digests) {
  Hasher hasher;
  for (const auto& [name, digest] : digests) hasher.add(digest);
  return hasher.digest();
}

}  // namespace tessera
