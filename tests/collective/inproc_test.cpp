// The in-process group: sums in rank order, the same bits for all, and failures that reach every rank.
#include "comm/collective/inproc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "tests/collective/exercise.h"

namespace tessera {
namespace {

using testing::HasSubstr;

// Runs one function per rank, each in a thread of its own, and returns what the ranks got.
template <class Function>
auto on_all_ranks(std::vector<std::unique_ptr<Collective>>& group, Function function) {
  std::vector<std::optional<decltype(function(*group[0]))>> results(group.size());
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < group.size(); ++rank) {
    threads.emplace_back([&, rank] { results[rank] = function(*group[rank]); });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

TEST(InprocCollective, AllRanksGetTheRankOrderedSumAndTheRootsBytes) {
  for (const int size : {1, 2, 5}) {
    SCOPED_TRACE(size);
    auto group = make_inproc_group(size);
    const auto all = on_all_ranks(group, [](Collective& rank) { return test::exercise(rank, 7, 1000); });
    std::vector<float> expected(1000, 0.0f);
    for (int rank = 0; rank < size; ++rank) {
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const auto bits = key_of({7, static_cast<std::uint64_t>(rank), i});
        expected[i] += static_cast<float>(static_cast<double>(bits >> 11) / 9007199254740992.0 - 0.5);
      }
    }
    for (const auto& one : all) {
      ASSERT_TRUE((*one).ok());
      EXPECT_EQ((*one)->real_f32, expected);
      EXPECT_EQ((*one)->real_f64, (**all[0]).real_f64);
      EXPECT_EQ((*one)->whole_f64, (**all[0]).whole_f64);
      EXPECT_EQ((*one)->sent[0],
                static_cast<std::byte>(key_of({7, static_cast<std::uint64_t>(size - 1), 0})));
    }
  }
}

TEST(InprocCollective, ManyRoundsGiveTheSameBitsInEveryRun) {
  std::vector<double> first;
  for (int run = 0; run < 3; ++run) {
    auto group = make_inproc_group(3);
    const auto all = on_all_ranks(group, [](Collective& rank) {
      std::vector<double> values(7, 0.1 * (rank.rank() + 1));
      for (int round = 0; round < 200; ++round) {
        if (!rank.all_reduce(std::span<double>(values)).ok()) return std::vector<double>{};
        for (double& value : values) value = value / 3.0 + 1e-3 * rank.rank();
      }
      return values;
    });
    for (const auto& one : all) EXPECT_EQ(one->size(), 7u);
    if (run == 0) first = *all[1];
    EXPECT_EQ(*all[1], first);
  }
}

TEST(InprocCollective, AnEmptySumIsABarrier) {
  auto group = make_inproc_group(2);
  const auto all =
      on_all_ranks(group, [](Collective& rank) { return rank.all_reduce(std::span<float>()).ok(); });
  EXPECT_TRUE(*all[0] && *all[1]);
}

TEST(InprocCollective, RanksThatDisagreeAllGetAnError) {
  auto group = make_inproc_group(3);
  const auto all = on_all_ranks(group, [](Collective& rank) {
    std::vector<float> values(rank.rank() == 2 ? 5 : 4);
    return rank.all_reduce(std::span<float>(values));
  });
  for (const auto& one : all) {
    ASSERT_FALSE(one->ok());
    EXPECT_THAT(one->error().message, HasSubstr("calls something else"));
  }
  EXPECT_FALSE(group[0]->barrier().ok()) << "a broken group stays broken";
}

TEST(InprocCollective, ARankThatLeavesOrStaysAwayFailsTheOthers) {
  auto group = make_inproc_group(2);
  std::thread leaver([&] { group[1].reset(); });
  const Status left = group[0]->barrier();
  leaver.join();
  ASSERT_FALSE(left.ok());
  EXPECT_THAT(left.error().message, HasSubstr("rank 1 has left"));

  auto slow = make_inproc_group(2, std::chrono::milliseconds(20));
  const Status late = slow[0]->barrier();
  ASSERT_FALSE(late.ok());
  EXPECT_THAT(late.error().message, HasSubstr("of 2 ranks only 1 came within 20 ms"));
}

}  // namespace
}  // namespace tessera
