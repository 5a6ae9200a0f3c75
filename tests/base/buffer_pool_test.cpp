// Memory that is used again, and loops over several threads.
#include "base/buffer_pool.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>

#include <barrier>
#include <cstring>
#include <limits>
#include <thread>

#include "base/numerics.h"
#include "base/parallel.h"

namespace tessera {
namespace {

TEST(BufferPool, UsesABlockAgainOnceNobodyHoldsIt) {
  BufferPool pool;
  Buffer first = pool.take(5 << 20);
  const std::byte* const memory = first.bytes.data();
  Buffer shared = first;
  first = {};
  Buffer second = pool.take(5 << 20);
  EXPECT_NE(second.bytes.data(), memory);  // still held
  shared = {};
  const Buffer third = pool.take((5 << 20) - 100);
  EXPECT_EQ(third.bytes.data(), memory);
  EXPECT_EQ(third.bytes.size(), (5u << 20) - 100);
}

TEST(BufferPool, GivesUpWhatItCannotUse) {
  BufferPool pool;
  const std::byte* const memory = pool.take(64 << 20).bytes.data();
  for (int i = 0; i < 70; ++i) pool.take(2 << 20);
  // The large block is gone: touching it would be a fault, so ask the kernel.
  unsigned char present = 0;
  EXPECT_EQ(::mincore(const_cast<std::byte*>(memory), 4096, &present), -1);
}

TEST(BufferPool, BuffersOutliveIt) {
  Buffer buffer;
  {
    BufferPool pool;
    buffer = pool.take(3 << 20);
  }
  std::memset(buffer.bytes.data(), 1, buffer.bytes.size());
  EXPECT_EQ(buffer.bytes[3000000], std::byte(1));
}

TEST(ParallelFor, CallsEachPartOnce) {
  for (int threads : {0, 1, 3, 8}) {
    std::vector<std::atomic<int>> calls(1000);
    parallel_for(calls.size(), threads, [&](std::size_t i) { ++calls[i]; });
    for (const std::atomic<int>& count : calls) EXPECT_EQ(count, 1);
  }
  parallel_for(0, 4, [](std::size_t) { FAIL(); });
}

/// While the caller works on its core, nothing of the same loop waits there for its turn.
TEST(ParallelFor, OtherThreadsAreKeptOffTheCallersCore) {
  cpu_set_t mine, others;
  ASSERT_EQ(::sched_getaffinity(0, sizeof mine, &mine), 0);
  if (CPU_COUNT(&mine) < 2) GTEST_SKIP() << "one core";
  const std::thread::id caller = std::this_thread::get_id();
  std::barrier both(2);
  parallel_for(2, 2, [&](std::size_t) {
    both.arrive_and_wait();  // the caller works, too
    if (std::this_thread::get_id() != caller) ::sched_getaffinity(0, sizeof others, &others);
  });
  EXPECT_EQ(CPU_COUNT(&others), CPU_COUNT(&mine) - 1);
}

/// Even where the other threads have ended before anybody can say where they belong.
TEST(ParallelFor, TheCallerStaysFree) {
  cpu_set_t before, after;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  for (int i = 0; i < 2000; ++i) parallel_for(3, 3, [](std::size_t) {});
  ASSERT_EQ(::sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

TEST(ParallelFor, OtherThreadsFlushDenormalsAsTheCallerDoes) {
  std::thread([] {
    for (const bool flushed : {false, true}) {
      if (flushed) flush_denormals();
      std::vector<float> products(64, -1);
      parallel_for(products.size(), 4, [&](std::size_t i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // let the others have some
        volatile float small = std::numeric_limits<float>::min();
        products[i] = small * 0.5f;
      });
      for (const float product : products) EXPECT_EQ(product == 0, flushed);
    }
  }).join();
}

}  // namespace
}  // namespace tessera
