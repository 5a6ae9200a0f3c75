#include "base/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

namespace tessera {
namespace {

constexpr std::size_t large = std::size_t{1} << 20;  // smaller ones are the allocator's
constexpr std::size_t page = std::size_t{2} << 20;   // a huge one
constexpr int patience = 64;                         // takes that a block waits for one that it fits

struct Block {
  void* memory = nullptr;
  std::size_t capacity = 0;
  int unused = 0;  ///< takes since it came back
};

}  // namespace

struct BufferPool::Blocks {
  std::mutex mutex;
  std::vector<Block> free;  // guarded by mutex

  ~Blocks() {
    for (const Block& block : free) ::munmap(block.memory, block.capacity);
  }
  Block take(std::size_t size) {
    const std::scoped_lock lock(mutex);
    const auto fits = [&](const Block& block) {
      return block.capacity >= size && block.capacity / 2 <= std::max(size, page);
    };
    Block found;
    if (const auto at = std::find_if(free.begin(), free.end(), fits); at != free.end()) {
      found = *at;
      free.erase(at);
    }
    std::erase_if(free, [](Block& block) {
      if (++block.unused < patience) return false;
      ::munmap(block.memory, block.capacity);
      return true;
    });
    return found;
  }
  void give(const Block& block) {
    const std::scoped_lock lock(mutex);
    free.push_back(block);
  }
};

BufferPool::BufferPool() : blocks_(std::make_shared<Blocks>()) {}

Buffer BufferPool::take(std::size_t size) const {
  if (size < large) return Buffer::allocate(size);
  Block block = blocks_->take(size);
  if (block.memory == nullptr) {
    block.capacity = (size + page - 1) / page * page;
    block.memory =
        ::mmap(nullptr, block.capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block.memory == MAP_FAILED) throw std::bad_alloc();
    ::madvise(block.memory, block.capacity, MADV_HUGEPAGE);  // fewer and cheaper faults where there are any
  }
  block.unused = 0;
  return {std::shared_ptr<void>(block.memory, [blocks = blocks_, block](void*) { blocks->give(block); }),
          {static_cast<std::byte*>(block.memory), size}};
}

}  // namespace tessera
