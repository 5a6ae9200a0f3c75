// Large blocks of memory that are used again and again: a fresh one costs a page fault for every 4 KiB.
#pragma once
#include <memory>

#include "base/tensor.h"

namespace tessera {

/// Safe to use from several threads; buffers may outlive it.
class BufferPool {
 public:
  BufferPool();
  /// Not initialised, 64-byte aligned. When nobody holds it any more, its memory goes back to the pool, which
  /// gives up what it could not use for a while.
  Buffer take(std::size_t size) const;

 private:
  struct Blocks;
  std::shared_ptr<Blocks> blocks_;
};

}  // namespace tessera
