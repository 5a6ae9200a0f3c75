// tessera_cuda.so: the CUDA device plug-in. It alone links libtorch_cuda; the host program links
// libtorch_cpu.
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "comm/collective/nccl.h"
#include "cuda/axpy.h"
#include "cuda/device_api.h"

namespace tessera::cuda {
namespace {

void tell(const std::string& text, char* why, std::size_t capacity) {
  if (capacity == 0) return;
  const std::size_t length = std::min(text.size(), capacity - 1);
  std::memcpy(why, text.data(), length);
  why[length] = '\0';
}

// No exception may cross the C interface.
template <class Result, class Work>
Result guarded(Result failed, char* why, std::size_t capacity, Work work) {
  try {
    return work();
  } catch (const std::exception& error) {
    const std::string what = error.what();
    tell(what.substr(0, what.find('\n')), why, capacity);  // LibTorch appends pages of hints and stack
    return failed;
  }
}

int device_count(char* why, std::size_t capacity) {
  return guarded(-1, why, capacity,
                 [] { return static_cast<int>(c10::cuda::device_count_ensure_non_zero()); });
}

// The first thing that the device computes otherwise than the CPU, in words; empty: nothing.
std::string difference(int device) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  constexpr std::int64_t count = 100003;  // no multiple of a block
  // Small whole numbers: every order and every fusing of multiply and add gives the same bits.
  const at::Tensor x = at::arange(count, at::TensorOptions().dtype(at::kFloat)).remainder(1024);
  const at::Tensor expected = x.mul(3).add(x);
  const at::Tensor x_there = x.to(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
  at::Tensor y_there = x_there.clone();
  if (!x_there.mul(3).add(x_there).cpu().equal(expected))
    return "LibTorch's product on the device differs from the CPU's";
  const int error =
      axpy(3.0f, x_there.data_ptr<float>(), y_there.data_ptr<float>(), static_cast<std::size_t>(count));
  if (error != 0) return "the axpy kernel failed with CUDA error " + std::to_string(error);
  if (!y_there.cpu().equal(expected)) return "the axpy kernel differs from the CPU";

  const auto id = draw_nccl_group_id();
  if (!id.ok()) return id.error().message;
  const auto group = join_nccl_group(*id, 0, 1, device);
  if (!group.ok()) return group.error().message;
  std::vector<float> sum(x.data_ptr<float>(), x.data_ptr<float>() + count);
  if (const Status done = (*group)->all_reduce(std::span<float>(sum)); !done.ok())
    return done.error().message;
  if (std::memcmp(sum.data(), x.data_ptr<float>(), sum.size() * sizeof(float)) != 0)
    return "a sum over one rank changed the values";
  return "";
}

int self_test(int device, char* why, std::size_t capacity) {
  return guarded(1, why, capacity, [&] {
    const std::string found = difference(device);
    tell(found, why, capacity);
    return found.empty() ? 0 : 1;
  });
}

int draw_group_id(unsigned char* id, char* why, std::size_t capacity) {
  const auto drawn = draw_nccl_group_id();
  if (!drawn.ok()) return tell(drawn.error().message, why, capacity), 1;
  std::memcpy(id, drawn->data(), drawn->size());
  return 0;
}

Collective* join_group(const TesseraGroupSeat* seat, char* why, std::size_t capacity) {
  NcclGroupId id;
  std::memcpy(id.data(), seat->id, id.size());
  auto group = join_nccl_group(id, seat->rank, seat->size, seat->device);
  if (!group.ok()) return tell(group.error().message, why, capacity), nullptr;
  return std::move(group).value().release();
}

constexpr TesseraDeviceApi api{
    TESSERA_DEVICE_API_VERSION, "cuda", device_count, self_test, draw_group_id, join_group};

}  // namespace
}  // namespace tessera::cuda

extern "C" const TesseraDeviceApi* tessera_device_api() {
  return &tessera::cuda::api;
}
