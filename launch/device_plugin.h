// Opens a device plug-in (tessera_cuda.so) at run time: the program itself links no CUDA. Open it before
// anything asks LibTorch for CUDA, which looks up its device hooks once.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/collective/collective.h"
#include "cuda/device_api.h"

namespace tessera {

class DevicePlugin {
 public:
  /// Opens the plug-in of `device` ("cuda"), looked for beside the program, in ../lib and in ../lib/tessera.
  /// Errors: no such file, built for another version, or a library of its own is missing; each says what to
  /// do.
  static Result<DevicePlugin> find(const std::string& device);
  static Result<DevicePlugin> open(const std::string& path);

  std::string name() const { return api_->name; }
  /// Errors: no driver, no device.
  Result<int> device_count() const;
  /// Computes a little on a device and compares with the CPU.
  Status self_test(int device) const;
  /// 128 bytes that name a group of devices; rank 0 draws them, the other ranks are told.
  Result<std::vector<unsigned char>> draw_group_id() const;
  Result<std::unique_ptr<Collective>> join_group(const TesseraGroupSeat& seat) const;

 private:
  explicit DevicePlugin(const TesseraDeviceApi* api) : api_(api) {}
  const TesseraDeviceApi*
      api_;  // the library stays open until the process ends: LibTorch keeps pointers into it
};

}  // namespace tessera
