// The device of recipe setting `device`, made ready for LibTorch.
#pragma once
#include <c10/core/Device.h>

#include <string>

#include "base/error.h"

namespace tessera {

/// "cpu", or opens the device's plug-in, which must happen before anything asks LibTorch for such a device.
/// Workers that `train` and `run` start take the devices of their machine in turn, by their number. Errors:
/// no plug-in, no driver, no device.
Result<at::Device> open_device(const std::string& name);

}  // namespace tessera
