// What LibTorch's CPU allocator hands out on this thread: bytes alive since a mark, and the most that was
// alive at once. From the allocator's own reports; shares nothing with the prediction that it is compared
// with.
#pragma once
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <memory>
#include <optional>

namespace tessera::testing {

/// Listens from construction to destruction. Run with one thread: what others allocate is not heard.
class AllocatorProbe {
 public:
  std::int64_t alive() const { return reports_->alive; }  ///< allocated minus freed since construction
  std::int64_t peak() const { return reports_->peak; }  ///< the most that alive() was since then or restart()
  void restart() { reports_->peak = reports_->alive; }

 private:
  struct Reports final : c10::MemoryReportingInfoBase {
    std::int64_t alive = 0, peak = 0;
    void reportMemoryUsage(void* /*address*/, std::int64_t bytes, std::size_t /*all*/,
                           std::size_t /*reserved*/, c10::Device /*device*/) override {
      alive += bytes;
      peak = std::max(peak, alive);
    }
    bool memoryProfilingEnabled() const override { return true; }
  };
  std::shared_ptr<Reports> reports_ = std::make_shared<Reports>();
  c10::DebugInfoGuard guard_{c10::DebugInfoKind::PROFILER_STATE, reports_};
};

}  // namespace tessera::testing
