#include "comm/collective/inproc.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

namespace tessera {
namespace {

enum class Operation { sum_f32, sum_f64, broadcast };

// What a rank asks for; all ranks must ask for the same.
struct Call {
  Operation operation;
  std::size_t bytes;
  int root;
  bool operator==(const Call&) const = default;
};

template <class T>
void sum_in_rank_order(const std::vector<std::span<std::byte>>& ends) {
  const std::size_t count = ends[0].size() / sizeof(T);
  std::vector<T> sum(count, T(0));
  for (const auto& end : ends) {
    const T* values = reinterpret_cast<const T*>(end.data());
    for (std::size_t i = 0; i < count; ++i) sum[i] += values[i];
  }
  for (const auto& end : ends) std::copy(sum.begin(), sum.end(), reinterpret_cast<T*>(end.data()));
}

// Where the ranks meet: the last to arrive does the work for all, the others wait for the generation to
// change.
class Hub {
 public:
  Hub(int size, std::chrono::milliseconds patience)
      : patience_(patience), ends_(static_cast<std::size_t>(size)) {}

  int size() const { return static_cast<int>(ends_.size()); }

  Status meet(int rank, const Call& call, std::span<std::byte> bytes) {
    std::unique_lock lock(mutex_);
    if (!broken_.empty()) return fail(ExitCode::failed, broken_);
    if (arrived_ > 0 && !(call == call_))
      return break_with("rank " + std::to_string(rank) + " calls something else than the others");
    call_ = call;
    ends_[static_cast<std::size_t>(rank)] = bytes;
    if (++arrived_ == ends_.size()) {
      perform();
      arrived_ = 0;
      ++generation_;
      changed_.notify_all();
      return {};
    }
    const std::uint64_t mine = generation_;
    const auto over = [&] { return generation_ != mine || !broken_.empty(); };
    if (!changed_.wait_for(lock, patience_, over)) {
      return break_with("of " + std::to_string(ends_.size()) + " ranks only " + std::to_string(arrived_) +
                        " came within " + std::to_string(patience_.count()) + " ms");
    }
    if (generation_ != mine) return {};
    return fail(ExitCode::failed, broken_);
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    if (broken_.empty()) (void)break_with("rank " + std::to_string(rank) + " has left");
  }

 private:
  // Both run under the lock; the ranks' memory is still while their threads wait.
  void perform() {
    switch (call_.operation) {
      case Operation::sum_f32:
        return sum_in_rank_order<float>(ends_);
      case Operation::sum_f64:
        return sum_in_rank_order<double>(ends_);
      case Operation::broadcast:
        const auto& from = ends_[static_cast<std::size_t>(call_.root)];
        for (const auto& to : ends_) {
          if (to.data() != from.data() && !to.empty()) std::memcpy(to.data(), from.data(), to.size());
        }
    }
  }
  Error break_with(const std::string& what) {
    broken_ = "the in-process group is broken: " + what;
    changed_.notify_all();
    return fail(ExitCode::failed, broken_);
  }

  const std::chrono::milliseconds patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // guarded by mutex_
  std::vector<std::span<std::byte>> ends_;  // of the ranks that have arrived
  std::size_t arrived_ = 0;
  std::uint64_t generation_ = 0;
  Call call_{};
  std::string broken_;  // why nothing works any more
};

class InprocCollective final : public Collective {
 public:
  InprocCollective(std::shared_ptr<Hub> hub, int rank) : hub_(std::move(hub)), rank_(rank) {}
  ~InprocCollective() override { hub_->leave(rank_); }
  int rank() const override { return rank_; }
  int size() const override { return hub_->size(); }
  Status all_reduce(std::span<float> values) override {
    return hub_->meet(rank_, {Operation::sum_f32, values.size_bytes(), 0}, std::as_writable_bytes(values));
  }
  Status all_reduce(std::span<double> values) override {
    return hub_->meet(rank_, {Operation::sum_f64, values.size_bytes(), 0}, std::as_writable_bytes(values));
  }
  Status broadcast(std::span<std::byte> bytes, int root) override {
    TESSERA_CHECK(root >= 0 && root < size(), ": root ", root, " of ", size(), " ranks");
    return hub_->meet(rank_, {Operation::broadcast, bytes.size(), root}, bytes);
  }

 private:
  std::shared_ptr<Hub> hub_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> make_inproc_group(int size, std::chrono::milliseconds patience) {
  TESSERA_CHECK_LT(0, size);
  const auto hub = std::make_shared<Hub>(size, patience);
  std::vector<std::unique_ptr<Collective>> group;
  for (int rank = 0; rank < size; ++rank) group.push_back(std::make_unique<InprocCollective>(hub, rank));
  return group;
}

}  // namespace tessera
