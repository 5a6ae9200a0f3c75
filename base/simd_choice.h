// The choice among the tables of kernels (base/simd_table.h) that this processor can run. Not for the files
// that are compiled once per level.
#pragma once
#include <vector>

#include "base/simd_level.h"

namespace tessera {

/// Those of three tables that this processor can run, the best one first.
template <class Table>
std::vector<const Table*> usable_tables(const Table& baseline, const Table& avx2, const Table& avx512) {
  std::vector<const Table*> usable;
  if (simd_level() >= SimdLevel::avx512) usable.push_back(&avx512);
  if (simd_level() >= SimdLevel::avx2) usable.push_back(&avx2);
  usable.push_back(&baseline);
  return usable;
}

}  // namespace tessera

/// Defines `levels()`, the usable tables of this name, and `name()`, the best of them.
#if defined(__x86_64__)
#define TESSERA_SIMD_CHOICE(Table, name, levels)                       \
  extern const Table name##_baseline, name##_avx2, name##_avx512;      \
  std::vector<const Table*> levels() {                                 \
    return usable_tables(name##_baseline, name##_avx2, name##_avx512); \
  }                                                                    \
  const Table& name() {                                                \
    static const Table& best = *levels().front();                      \
    return best;                                                       \
  }
#else
#define TESSERA_SIMD_CHOICE(Table, name, levels) \
  extern const Table name##_baseline;            \
  std::vector<const Table*> levels() {           \
    return {&name##_baseline};                   \
  }                                              \
  const Table& name() {                          \
    return name##_baseline;                      \
  }
#endif
