#include <cuda_runtime.h>

#include "cuda/axpy.h"

namespace tessera::cuda {
namespace {

__global__ void axpy_kernel(float a, const float* x, float* y, std::size_t count) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) y[i] += a * x[i];
}

}  // namespace

int axpy(float a, const float* x, float* y, std::size_t count) {
  constexpr unsigned threads = 256;
  axpy_kernel<<<static_cast<unsigned>((count + threads - 1) / threads), threads>>>(a, x, y, count);
  if (const cudaError_t launched = cudaGetLastError(); launched != cudaSuccess) return launched;
  return cudaDeviceSynchronize();
}

}  // namespace tessera::cuda
