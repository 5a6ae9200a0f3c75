// Copying of more than the cache holds.
#pragma once
#include <cstddef>

namespace tessera {

/// memcpy(to, from, bytes), of a piece of `of_all` bytes that are copied in all. Where these are many, past
/// the cache: what is overwritten is not read first, and what lies in the cache stays there.
void stream_copy(void* to, const void* from, std::size_t bytes, std::size_t of_all);

}  // namespace tessera
