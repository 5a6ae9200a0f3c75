// The plug-in's own kernel, which the self test runs: y += a * x.
#pragma once
#include <cstddef>

namespace tessera::cuda {

/// x and y: `count` floats in the memory of the current device. Returns the CUDA error code, 0 for none, when
/// it is done.
int axpy(float a, const float* x, float* y, std::size_t count);

}  // namespace tessera::cuda
