// The kernels at one instruction set. Compiled once per level (cmake/TesseraSimd.cmake), which TESSERA_SIMD
// names: nothing here may have external linkage but the table, or one level's code could stand in for
// another's.
#include "base/simd_table.h"
#include "models/layers/kernels/attention_core.h"

namespace tessera {
namespace {

void multiply_whole(MatrixView a, Packed b, std::int64_t begin, std::int64_t end, Target target) {
  multiply(a, b, begin, end, b.inner, b.columns, target);
}

}  // namespace

#define TESSERA_TEXT(name) #name
#define TESSERA_NAME(name) TESSERA_TEXT(name)
TESSERA_SIMD_TABLE(Kernels, kernels) = {
    .level = TESSERA_NAME(TESSERA_SIMD),
    .products = {.panel = panel, .pack = pack, .multiply = multiply_whole},
    .norm_forward = norm_forward,
    .norm_backward = norm_backward,
    .gelu = gelu,
    .swiglu = swiglu,
    .scale_rows = scale_rows,
    .drop = drop,
    .add_rows = add_rows,
    .rotate = rotate,
    .attention_forward = attention_forward,
    .attention_backward = attention_backward,
};

}  // namespace tessera
