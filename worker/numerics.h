// The numeric surroundings of a worker: threads, denormals, deterministic kernels, and the fingerprint that
// says which of them can change bits.
#pragma once
#include <c10/core/Device.h>

#include <string>

namespace tessera {

/// Sets LibTorch up for reproducible work on the calling thread: `threads` intra-op threads, denormals
/// flushed; on other devices than the CPU only algorithms that sum in a fixed order.
void prepare_numerics(int threads, at::Device device = at::kCPU);
/// "torch 2.11.0; threads 1; cpu AVX512; ...": two workers with equal fingerprints compute equal bits (on the
/// CPU; of other devices only the kind is told).
std::string numerics_fingerprint(at::Device device = at::kCPU);

}  // namespace tessera
