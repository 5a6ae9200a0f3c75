#include "worker/numerics.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/native/DispatchStub.h>
#include <torch/version.h>

#include "base/numerics.h"
#include "models/layers/fast_products.h"

namespace tessera {

void prepare_numerics(int threads, at::Device device) {
  at::set_num_threads(threads);
  at::globalContext().setFlushDenormal(true);
  flush_denormals();
  if (!device.is_cpu()) at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
}

std::string numerics_fingerprint(at::Device device) {
  return std::string("torch ") + TORCH_VERSION + "; threads " + std::to_string(at::get_num_threads()) +
         "; cpu " + at::get_cpu_capability() + "; kernels " + fast_kernel_level() + "; mkl " +
         (at::hasMKL() ? "on" : "off") + "; denormals flushed" +
         (device.is_cpu() ? "" : "; device " + c10::DeviceTypeName(device.type(), /*lower_case=*/true));
}

}  // namespace tessera
