// Floating-point mode of a thread. Denormals slow fp32 down a hundredfold on some models, and whether they
// are flushed changes bits: so every thread of every role calls this first, and the mode is part of the
// numerics fingerprint.
#pragma once
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace tessera {

/// Flushes denormal results and inputs to zero on the calling thread (x86 FTZ and DAZ).
inline void flush_denormals() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040u);
#endif
}

}  // namespace tessera
