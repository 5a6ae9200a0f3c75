#include "comm/collective/mpi.h"

#include <mpi.h>

#include <algorithm>
#include <string>

namespace tessera {
namespace {

// MPI counts in int: longer spans go in parts.
constexpr std::size_t part = std::size_t{1} << 28;

Status status_of(int code, const char* what) {
  if (code == MPI_SUCCESS) return {};
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return fail(ExitCode::failed, "MPI's ", what,
              " failed: ", std::string(text, static_cast<std::size_t>(length)));
}

class MpiCollective final : public Collective {
 public:
  MpiCollective(MPI_Comm group, bool finalize) : group_(group), finalize_(finalize) {
    MPI_Comm_rank(group_, &rank_);
    MPI_Comm_size(group_, &size_);
  }
  ~MpiCollective() override {
    MPI_Comm_free(&group_);
    if (finalize_) MPI_Finalize();
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  Status all_reduce(std::span<float> values) override { return sum(values, MPI_FLOAT); }
  Status all_reduce(std::span<double> values) override { return sum(values, MPI_DOUBLE); }
  Status broadcast(std::span<std::byte> bytes, int root) override {
    TESSERA_CHECK(root >= 0 && root < size_, ": root ", root, " of ", size_, " ranks");
    for (std::size_t begin = 0; begin < bytes.size(); begin += part) {
      const auto piece = bytes.subspan(begin, std::min(part, bytes.size() - begin));
      TESSERA_TRY(status_of(MPI_Bcast(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, root, group_),
                            "broadcast"));
    }
    return {};
  }

 private:
  template <class T>
  Status sum(std::span<T> values, MPI_Datatype type) {
    for (std::size_t begin = 0; begin < values.size(); begin += part) {
      const auto piece = values.subspan(begin, std::min(part, values.size() - begin));
      TESSERA_TRY(status_of(
          MPI_Allreduce(MPI_IN_PLACE, piece.data(), static_cast<int>(piece.size()), type, MPI_SUM, group_),
          "all-reduce"));
    }
    return {};
  }

  MPI_Comm group_;
  bool finalize_;
  int rank_ = 0, size_ = 1;
};

}  // namespace

Result<std::unique_ptr<Collective>> join_mpi_world() {
  int running = 0, over = 0;
  MPI_Initialized(&running);
  MPI_Finalized(&over);
  if (over) return fail(ExitCode::failed, "MPI was finalised in this process and cannot be started again");
  if (!running) {
    int provided = 0;
    TESSERA_TRY(status_of(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "start"));
  }
  // A communicator of our own: its errors come back as codes, and its messages never meet anybody else's.
  MPI_Comm group = MPI_COMM_NULL;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  TESSERA_TRY(status_of(MPI_Comm_dup(MPI_COMM_WORLD, &group), "joining of the world"));
  MPI_Comm_set_errhandler(group, MPI_ERRORS_RETURN);
  return std::unique_ptr<Collective>(std::make_unique<MpiCollective>(group, !running));
}

}  // namespace tessera
