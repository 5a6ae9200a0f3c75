# Kernels that are compiled for instruction sets which not every processor has. Each such file gives one table of functions,
# and the caller picks one at run time (base/simd_choice.h), so the binary runs on every processor of the architecture.

# tessera_simd_file(TARGET FILE LEVEL [FLAGS...]): compiles FILE into TARGET for one level, with TESSERA_SIMD set to its name.
function(tessera_simd_file TARGET FILE LEVEL)
  set(flags_baseline "")
  set(flags_avx2 -mavx2 -mfma)
  set(flags_avx512 -mavx2 -mfma -mavx512f -mavx512vl -mavx512dq -mavx512bw -mprefer-vector-width=512)
  get_filename_component(stem ${FILE} NAME_WE)
  set(object ${TARGET}_${stem}_${LEVEL})
  add_library(${object} OBJECT ${FILE})
  target_compile_definitions(${object} PRIVATE TESSERA_SIMD=${LEVEL})
  # -Wno-psabi: vectors wider than the level's registers never cross a function that others could call. The intrinsics of
  # g++ 12 leave their unused operand uninitialised on purpose.
  target_compile_options(${object} PRIVATE -O3 -fno-math-errno -fno-trapping-math -Wno-psabi -Wno-maybe-uninitialized
    ${flags_${LEVEL}} ${ARGN})
  target_sources(${TARGET} PRIVATE $<TARGET_OBJECTS:${object}>)
endfunction()

# tessera_simd(TARGET FILE): compiles FILE into TARGET once per level.
function(tessera_simd TARGET FILE)
  set(levels baseline)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND levels avx2 avx512)
  endif()
  foreach(level ${levels})
    tessera_simd_file(${TARGET} ${FILE} ${level})
  endforeach()
endfunction()
