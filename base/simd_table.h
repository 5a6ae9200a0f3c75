// One of the tables of kernels that are compiled once per instruction set (cmake/TesseraSimd.cmake), which
// TESSERA_SIMD names; base/simd_choice.h chooses among them. Nothing but macros: no code of a level may leak
// into the others.
#pragma once

#define TESSERA_SIMD_JOIN_(a, b) a##b
#define TESSERA_SIMD_JOIN(a, b) TESSERA_SIMD_JOIN_(a, b)
/// In the file that is compiled once per level: begins the definition of NAME_LEVEL, "= {...};" follows.
#define TESSERA_SIMD_TABLE(Table, name)                        \
  extern const Table TESSERA_SIMD_JOIN(name##_, TESSERA_SIMD); \
  const Table TESSERA_SIMD_JOIN(name##_, TESSERA_SIMD)
