// What a device plug-in (a shared library opened at run time, DESIGN: "scale") offers to the host program:
// one C symbol that returns this table. Functions write the reason of a failure into `why` (always ended with
// a zero).
#pragma once
#include <cstddef>
#include <cstdint>

namespace tessera {
class Collective;
}

extern "C" {

/// Grows with every change of the table: host and plug-in must agree.
#define TESSERA_DEVICE_API_VERSION 1

/// One rank's place in a group of devices.
struct TesseraGroupSeat {
  unsigned char id[128];  ///< from draw_group_id, the same for all ranks
  int rank, size, device;
};

struct TesseraDeviceApi {
  std::uint32_t version;  ///< TESSERA_DEVICE_API_VERSION of the plug-in's build
  const char* name;       ///< "cuda"
  /// Devices that can be used; -1 and the reason where there is no driver.
  int (*device_count)(char* why, std::size_t capacity);
  /// Computes on the device with an own kernel, with LibTorch and with a collective of one rank, and compares
  /// with the CPU. 0: all agree.
  int (*self_test)(int device, char* why, std::size_t capacity);
  /// Writes the 128 bytes that name a new group. 0: done.
  int (*draw_group_id)(unsigned char* id, char* why, std::size_t capacity);
  /// Joins a group of devices; the caller owns the result. Null: failed.
  tessera::Collective* (*join_group)(const TesseraGroupSeat* seat, char* why, std::size_t capacity);
};

/// The plug-in's one symbol.
const TesseraDeviceApi* tessera_device_api();
}
