#include "base/stream_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace tessera {

void stream_copy(void* to, const void* from, std::size_t bytes, std::size_t of_all) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
#if defined(__x86_64__)
  constexpr std::size_t many = std::size_t{4} << 20, line = 64;
  if (of_all >= many) {
    const std::size_t before = std::min(bytes, -reinterpret_cast<std::uintptr_t>(out) % line);
    std::memcpy(out, in, before);
    out += before, in += before, bytes -= before;
    for (; bytes >= line; out += line, in += line, bytes -= line) {
      for (std::size_t at = 0; at < line; at += sizeof(__m128i)) {
        const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + at));
        _mm_stream_si128(reinterpret_cast<__m128i*>(out + at), part);
      }
    }
    _mm_sfence();  // before anybody is told that it is there
  }
#endif
  std::memcpy(out, in, bytes);
}

}  // namespace tessera
