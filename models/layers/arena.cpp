#include "models/layers/arena.h"

#include <ATen/ops/empty.h>

namespace tessera {

ArenaBuffer& ArenaBuffer::operator=(ArenaBuffer&& other) noexcept {
  release();
  arena_ = std::move(other.arena_);
  block_ = std::move(other.block_);
  return *this;
}

void ArenaBuffer::release() {
  if (!block_.defined()) return;
  const std::lock_guard lock(arena_->mutex_);
  arena_->in_use_ -= block_.numel();
  arena_->free_[block_.numel()].push_back(std::move(block_));
  block_.reset();
}

ArenaBuffer Arena::take(std::int64_t elements) {
  ArenaBuffer buffer;
  buffer.arena_ = shared_from_this();
  {
    const std::lock_guard lock(mutex_);
    in_use_ += elements;
    const auto found = free_.find(elements);
    if (found != free_.end() && !found->second.empty()) {
      buffer.block_ = std::move(found->second.back());
      found->second.pop_back();
    }
  }
  if (!buffer.block_.defined()) buffer.block_ = at::empty({elements}, at::kFloat);
  return buffer;
}

void Arena::expect(std::int64_t rows) {
  const std::lock_guard lock(mutex_);
  if (rows == rows_) return;
  rows_ = rows;
  free_.clear();
}

std::int64_t Arena::in_use() {
  const std::lock_guard lock(mutex_);
  return in_use_;
}

}  // namespace tessera
