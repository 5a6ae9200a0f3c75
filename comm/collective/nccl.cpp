#include "comm/collective/nccl.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>
#include <utility>

namespace tessera {
namespace {

static_assert(sizeof(NcclGroupId) == sizeof(ncclUniqueId));

Status status_of(ncclResult_t code, const char* what) {
  if (code == ncclSuccess) return {};
  return fail(ExitCode::failed, "NCCL's ", what, " failed: ", ncclGetErrorString(code), " (",
              ncclGetLastError(nullptr), ")");
}
Status status_of(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return {};
  return fail(ExitCode::failed, "CUDA's ", what, " failed: ", cudaGetErrorString(code));
}

// A span as the GPU sees it: itself where it lies in device memory, else a copy that goes back afterwards.
class DeviceSpan {
 public:
  DeviceSpan(std::span<std::byte> bytes, cudaStream_t stream) : bytes_(bytes), stream_(stream) {}
  DeviceSpan(const DeviceSpan&) = delete;
  DeviceSpan& operator=(const DeviceSpan&) = delete;
  ~DeviceSpan() {
    if (copy_) cudaFreeAsync(copy_, stream_);
  }
  Status open() {
    cudaPointerAttributes where{};
    TESSERA_TRY(status_of(cudaPointerGetAttributes(&where, bytes_.data()), "look-up of a pointer"));
    if (where.type == cudaMemoryTypeDevice || where.type == cudaMemoryTypeManaged) return {};
    TESSERA_TRY(status_of(cudaMallocAsync(&copy_, bytes_.size(), stream_), "allocation"));
    return status_of(cudaMemcpyAsync(copy_, bytes_.data(), bytes_.size(), cudaMemcpyHostToDevice, stream_),
                     "copy to the GPU");
  }
  void* data() { return copy_ ? copy_ : bytes_.data(); }
  Status close() {
    if (copy_) {
      TESSERA_TRY(
          status_of(cudaMemcpyAsync(bytes_.data(), copy_, bytes_.size(), cudaMemcpyDeviceToHost, stream_),
                    "copy back"));
    }
    return status_of(cudaStreamSynchronize(stream_), "work on the stream");
  }

 private:
  std::span<std::byte> bytes_;
  cudaStream_t stream_;
  void* copy_ = nullptr;
};

class NcclCollective final : public Collective {
 public:
  NcclCollective(ncclComm_t group, cudaStream_t stream, int rank, int size, int device)
      : group_(group), stream_(stream), rank_(rank), size_(size), device_(device) {}
  ~NcclCollective() override {
    cudaSetDevice(device_);
    ncclCommDestroy(group_);
    cudaStreamDestroy(stream_);
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  Status all_reduce(std::span<float> values) override { return sum(values, ncclFloat); }
  Status all_reduce(std::span<double> values) override { return sum(values, ncclDouble); }
  Status broadcast(std::span<std::byte> bytes, int root) override {
    TESSERA_CHECK(root >= 0 && root < size_, ": root ", root, " of ", size_, " ranks");
    return on_device(bytes, [&](void* data) {
      return status_of(ncclBroadcast(data, data, bytes.size(), ncclUint8, root, group_, stream_),
                       "broadcast");
    });
  }

 private:
  template <class T>
  Status sum(std::span<T> values, ncclDataType_t type) {
    return on_device(std::as_writable_bytes(values), [&](void* data) {
      return status_of(ncclAllReduce(data, data, values.size(), type, ncclSum, group_, stream_),
                       "all-reduce");
    });
  }
  template <class Work>
  Status on_device(std::span<std::byte> bytes, Work work) {
    if (bytes.empty()) return {};
    TESSERA_TRY(status_of(cudaSetDevice(device_), "choice of a device"));
    DeviceSpan span(bytes, stream_);
    TESSERA_TRY(span.open());
    TESSERA_TRY(work(span.data()));
    return span.close();
  }

  ncclComm_t group_;
  cudaStream_t stream_;
  int rank_, size_, device_;
};

}  // namespace

Result<NcclGroupId> draw_nccl_group_id() {
  ncclUniqueId drawn;
  TESSERA_TRY(status_of(ncclGetUniqueId(&drawn), "drawing of a group id"));
  NcclGroupId id;
  std::memcpy(id.data(), &drawn, id.size());
  return id;
}

Result<std::unique_ptr<Collective>> join_nccl_group(const NcclGroupId& id, int rank, int size, int device) {
  TESSERA_TRY(status_of(cudaSetDevice(device), "choice of a device"));
  cudaStream_t stream = nullptr;
  TESSERA_TRY(status_of(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making of a stream"));
  ncclUniqueId unique;
  std::memcpy(&unique, id.data(), id.size());
  ncclComm_t group = nullptr;
  if (const Status joined = status_of(ncclCommInitRank(&group, size, unique, rank), "joining of a group");
      !joined.ok()) {
    cudaStreamDestroy(stream);
    return joined.error();
  }
  return std::unique_ptr<Collective>(std::make_unique<NcclCollective>(group, stream, rank, size, device));
}

}  // namespace tessera
