// Memory that the fast layers of one model replica use again and again: a step of a known shape finds all its
// buffers from the last one. Blocks come from LibTorch's allocator, so that its observers count them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace tessera {

class Arena;

/// fp32 memory of an arena, aligned to a cache line and not initialised; goes back when it is destroyed.
class ArenaBuffer {
 public:
  ArenaBuffer() = default;
  ArenaBuffer(ArenaBuffer&& other) noexcept
      : arena_(std::move(other.arena_)), block_(std::move(other.block_)) {}
  ArenaBuffer& operator=(ArenaBuffer&& other) noexcept;
  ~ArenaBuffer() { release(); }
  float* data() const { return block_.defined() ? block_.mutable_data_ptr<float>() : nullptr; }
  explicit operator bool() const { return block_.defined(); }
  void release();

 private:
  friend class Arena;
  std::shared_ptr<Arena> arena_;
  at::Tensor block_;
};

class Arena : public std::enable_shared_from_this<Arena> {
 public:
  ArenaBuffer take(std::int64_t elements);
  /// Says how many rows the coming steps have; blocks made for another number are let go.
  void expect(std::int64_t rows);
  /// Elements that are taken and not back.
  std::int64_t in_use();

 private:
  friend class ArenaBuffer;
  std::mutex mutex_;
  std::int64_t rows_ = 0, in_use_ = 0;
  std::map<std::int64_t, std::vector<at::Tensor>> free_;  ///< by size; the last returned is the first taken
};

}  // namespace tessera
