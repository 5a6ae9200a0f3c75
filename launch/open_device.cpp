#include "launch/open_device.h"

#include <cstdlib>

#include "launch/device_plugin.h"

namespace tessera {

Result<at::Device> open_device(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  // cuBLAS sums in a fixed order only with a fixed workspace, and reads this once.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  TESSERA_ASSIGN(const DevicePlugin plugin, DevicePlugin::find(name));
  TESSERA_ASSIGN(const int count, plugin.device_count());
  const char* number = std::getenv("TESSERA_WORKER");
  const int index = number != nullptr ? std::atoi(number) % count : 0;
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

}  // namespace tessera
