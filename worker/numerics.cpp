#include "worker/numerics.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/native/DispatchStub.h>
#include <torch/version.h>

#include "base/numerics.h"
#include "models/layers/fast_products.h"

namespace tessera {

void prepare_numerics(int threads) {
  at::set_num_threads(threads);
  at::globalContext().setFlushDenormal(true);
  flush_denormals();
}

std::string numerics_fingerprint() {
  return std::string("torch ") + TORCH_VERSION + "; threads " + std::to_string(at::get_num_threads()) +
         "; cpu " + at::get_cpu_capability() + "; kernels " + fast_kernel_level() + "; mkl " +
         (at::hasMKL() ? "on" : "off") + "; denormals flushed";
}

}  // namespace tessera
