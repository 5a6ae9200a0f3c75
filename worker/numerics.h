// The numeric surroundings of a worker: threads, denormals, deterministic kernels, and the fingerprint that
// says which of them can change bits.
#pragma once
#include <string>

namespace tessera {

/// Sets LibTorch up for reproducible work on the calling thread: `threads` intra-op threads, denormals
/// flushed.
void prepare_numerics(int threads);
/// "torch 2.11.0; threads 1; cpu AVX512; ...": two workers with equal fingerprints compute equal bits.
std::string numerics_fingerprint();

}  // namespace tessera
