# LibTorch from the unpacked PyPI wheel (launch/setup.sh puts it under .deps/torch), as the imported target Torch::cpu.
# The wheel's own find_package(Torch) insists on a CUDA toolkit, and -ltorch would pull libtorch_cuda: link torch_cpu and c10 alone.
set(TESSERA_TORCH_ROOT ${CMAKE_SOURCE_DIR}/.deps/site/torch CACHE PATH "The torch folder of the unpacked wheel")
find_library(TORCH_CPU_LIBRARY torch_cpu PATHS ${TESSERA_TORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(TORCH_C10_LIBRARY c10 PATHS ${TESSERA_TORCH_ROOT}/lib NO_DEFAULT_PATH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TorchWheel REQUIRED_VARS TORCH_CPU_LIBRARY TORCH_C10_LIBRARY
  REASON_FAILURE_MESSAGE "LibTorch is not under ${TESSERA_TORCH_ROOT}. Run: launch/setup.sh torch")
if(TorchWheel_FOUND AND NOT TARGET Torch::cpu)
  add_library(Torch::cpu INTERFACE IMPORTED)
  target_include_directories(Torch::cpu SYSTEM INTERFACE
    ${TESSERA_TORCH_ROOT}/include ${TESSERA_TORCH_ROOT}/include/torch/csrc/api/include)
  target_link_libraries(Torch::cpu INTERFACE ${TORCH_CPU_LIBRARY} ${TORCH_C10_LIBRARY})
  target_link_options(Torch::cpu INTERFACE -Wl,-rpath,${TESSERA_TORCH_ROOT}/lib -Wl,--allow-shlib-undefined)
endif()
