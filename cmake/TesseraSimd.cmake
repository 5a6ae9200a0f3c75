# tessera_simd(TARGET FILE): compiles FILE into TARGET once per instruction set, with TESSERA_SIMD set to the level's name.
# The file gives one table of functions named after the level, and the caller picks one at run time (base/simd_level.h), so
# the binary runs on every processor of the architecture.
function(tessera_simd TARGET FILE)
  set(levels baseline)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND levels avx2 avx512)
  endif()
  set(flags_baseline "")
  set(flags_avx2 -mavx2 -mfma)
  set(flags_avx512 -mavx2 -mfma -mavx512f -mavx512vl -mavx512dq -mavx512bw -mprefer-vector-width=512)
  get_filename_component(stem ${FILE} NAME_WE)
  foreach(level ${levels})
    set(object ${TARGET}_${stem}_${level})
    add_library(${object} OBJECT ${FILE})
    target_compile_definitions(${object} PRIVATE TESSERA_SIMD=${level})
    # Vectors that are wider than the level's registers never cross a function that others could call.
    target_compile_options(${object} PRIVATE -O3 -fno-math-errno -fno-trapping-math -Wno-psabi ${flags_${level}})
    target_sources(${TARGET} PRIVATE $<TARGET_OBJECTS:${object}>)
  endforeach()
endfunction()
