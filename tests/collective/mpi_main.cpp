// One rank of an MPI group, under mpirun or srun: its results must equal those of the same rank of an
// in-process group; broadcasts and sums of whole numbers to the bit, sums of reals within rounding.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <thread>
#include <vector>

#include "comm/collective/inproc.h"
#include "comm/collective/mpi.h"
#include "tests/collective/exercise.h"

namespace tessera {
namespace {

test::Outcome in_process(int size, int wanted, std::uint64_t seed, std::size_t count) {
  auto group = make_inproc_group(size);
  test::Outcome outcome;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto result = test::exercise(*group[static_cast<std::size_t>(rank)], seed, count);
      if (rank == wanted) outcome = std::move(result).value();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return outcome;
}

// The largest difference, in units of the rounding of a sum of `size` values of at most 0.5.
template <class T>
double distance(const std::vector<T>& a, const std::vector<T>& b, int size) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return worst / (static_cast<double>(std::numeric_limits<T>::epsilon()) * size);
}

int run(int expected_size) {
  auto joined = join_mpi_world();
  if (!joined.ok()) return std::fprintf(stderr, "%s\n", joined.error().message.c_str()), 1;
  Collective& group = **joined;
  if (group.size() != expected_size) {
    std::fprintf(stderr, "expected %d ranks, MPI says %d\n", expected_size, group.size());
    return 1;
  }
  int faults = 0;
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{300000}}) {
    const std::uint64_t seed = 11 + count;
    const auto got = test::exercise(group, seed, count);
    if (!got.ok()) return std::fprintf(stderr, "%s\n", got.error().message.c_str()), 1;
    const test::Outcome want = in_process(group.size(), group.rank(), seed, count);
    const bool exact =
        got->sent == want.sent && got->whole_f32 == want.whole_f32 && got->whole_f64 == want.whole_f64;
    const double f32 = distance(got->real_f32, want.real_f32, group.size());
    const double f64 = distance(got->real_f64, want.real_f64, group.size());
    const bool good = exact && f32 <= 1 && f64 <= 1;
    faults += good ? 0 : 1;
    std::printf(
        "rank %d of %d, %zu values: exact ones %s, reals within %.2f (f32) and %.2f (f64) roundings\n",
        group.rank(), group.size(), count, exact ? "equal" : "DIFFER", f32, f64);
  }
  return faults == 0 ? 0 : 1;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  return tessera::run(argc > 1 ? std::atoi(argv[1]) : 4);
}
