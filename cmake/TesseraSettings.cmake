# Compiler settings that hold for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(TESSERA_CCACHE ccache)
if(TESSERA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${TESSERA_CCACHE})
endif()

add_compile_options(-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
# One rounding everywhere: a fused multiply-add in one build and not in another would change the bits of a run.
add_compile_options(-ffp-contract=off)
# Checks with operands stay on in every build (DESIGN: a bug aborts), so NDEBUG is left to third parties only.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(TESSERA_MOLD mold)
if(TESSERA_MOLD AND NOT TESSERA_CUDA)
  add_link_options(-fuse-ld=mold)
endif()

if(TESSERA_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(TESSERA_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
endif()

# Every file includes by its path from the top: #include "comm/messages.h".
include_directories(${CMAKE_SOURCE_DIR})
