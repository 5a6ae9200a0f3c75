// Sums, broadcasts and barriers among the ranks of one group (the processes or GPUs that share a slot's
// work). A group stands or falls together: an error means that it has to be made anew. Implementations:
// inproc (ranks are threads of one process), mpi (ranks are processes; comm/collective/mpi.h) and NCCL (ranks
// are GPUs; cuda/).
#pragma once
#include <cstddef>
#include <span>

#include "base/error.h"

namespace tessera {

/// One rank's end of a group. All ranks make the same calls in the same order, with spans of equal sizes.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Every rank's values become the sum over ranks. In-process: added in rank order, the same bits on every
  /// rank and in every run. MPI and NCCL: the same bits on every rank, in an order of the library's choice.
  virtual Status all_reduce(std::span<float> values) = 0;
  virtual Status all_reduce(std::span<double> values) = 0;
  /// Every rank's bytes become those of `root`.
  virtual Status broadcast(std::span<std::byte> bytes, int root) = 0;

  /// Returns when every rank has called it: a sum over one number each.
  Status barrier() {
    double one = 1;
    return all_reduce(std::span<double>(&one, 1));
  }
};

}  // namespace tessera
