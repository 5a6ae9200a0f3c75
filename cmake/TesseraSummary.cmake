# What this build contains, printed at the end of configure.
message(STATUS "Tessera ${PROJECT_VERSION}: build=${CMAKE_BUILD_TYPE} torch=${TESSERA_TORCH} cuda=${TESSERA_CUDA} "
  "tests=${TESSERA_TESTS} sanitize=${TESSERA_SANITIZE} ccache=${TESSERA_CCACHE} linker=${TESSERA_MOLD}")
