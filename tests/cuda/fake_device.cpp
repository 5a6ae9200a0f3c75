// A device plug-in without a device: what the host side is tested with where there is no GPU.
#include <cstdio>
#include <cstring>

#include "comm/collective/inproc.h"
#include "cuda/device_api.h"

#ifndef FAKE_API_VERSION
#define FAKE_API_VERSION TESSERA_DEVICE_API_VERSION
#endif

namespace {

int device_count(char*, std::size_t) {
  return 2;
}
int self_test(int device, char* why, std::size_t capacity) {
  if (device < 2) return 0;
  std::snprintf(why, capacity, "there is no device %d", device);
  return 1;
}
int draw_group_id(unsigned char* id, char*, std::size_t) {
  std::memset(id, 7, 128);
  return 0;
}
tessera::Collective* join_group(const TesseraGroupSeat* seat, char* why, std::size_t capacity) {
  if (seat->id[127] == 7 && seat->size == 1) return tessera::make_inproc_group(1)[0].release();
  std::snprintf(why, capacity, "nobody else came");
  return nullptr;
}
constexpr TesseraDeviceApi api{FAKE_API_VERSION, "fake", device_count, self_test, draw_group_id, join_group};

}  // namespace

extern "C" const TesseraDeviceApi* tessera_device_api() {
  return &api;
}
