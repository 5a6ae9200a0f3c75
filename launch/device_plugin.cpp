#include "launch/device_plugin.h"

#include <dlfcn.h>

#include <filesystem>
#include <system_error>

namespace tessera {
namespace {

// The reason that a plug-in's function gives.
struct Why {
  char text[512] = "";
  Error error(const std::string& plugin, const char* what) const {
    return fail(ExitCode::failed, "the ", plugin, " plug-in ", what, ": ",
                text[0] ? text : "it gave no reason");
  }
};

}  // namespace

Result<DevicePlugin> DevicePlugin::find(const std::string& device) {
  std::error_code failed;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failed);
  const std::filesystem::path folder = program.parent_path();
  const std::string file = "tessera_" + device + ".so";
  for (const auto& place : {folder, folder / "lib", folder / "../lib", folder / "../lib/tessera"}) {
    if (std::filesystem::exists(place / file, failed)) return open((place / file).string());
  }
  return fail(ExitCode::usage, "there is no ", file, " beside ", program.string(),
              " or in its lib folder: this build has no ", device,
              " back end. Build it with: cmake --preset cuda && cmake --build --preset cuda; or choose "
              "device = \"cpu\"");
}

Result<DevicePlugin> DevicePlugin::open(const std::string& path) {
  // GLOBAL: LibTorch finds the plug-in's registrations by symbol.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    const char* why = dlerror();
    return fail(ExitCode::failed, "cannot open the device plug-in ", path, ": ",
                why ? why : "no reason given",
                ". A missing libcusparseLt, libnvshmem_host or libcufile comes with NVIDIA's wheels of the "
                "same name");
  }
  const auto entry = reinterpret_cast<const TesseraDeviceApi* (*)()>(dlsym(library, "tessera_device_api"));
  if (!entry)
    return fail(ExitCode::failed, path, " is no device plug-in of Tessera: it has no tessera_device_api");
  const TesseraDeviceApi* api = entry();
  if (api->version != TESSERA_DEVICE_API_VERSION) {
    return fail(ExitCode::failed, path, " speaks version ", api->version,
                " of the device interface, this program ", TESSERA_DEVICE_API_VERSION,
                ": build both from the same sources");
  }
  return DevicePlugin(api);
}

Result<int> DevicePlugin::device_count() const {
  Why why;
  const int count = api_->device_count(why.text, sizeof why.text);
  if (count <= 0) return why.error(name(), "finds no device");
  return count;
}

Status DevicePlugin::self_test(int device) const {
  Why why;
  if (api_->self_test(device, why.text, sizeof why.text) != 0)
    return why.error(name(), "fails its self test");
  return {};
}

Result<std::vector<unsigned char>> DevicePlugin::draw_group_id() const {
  Why why;
  std::vector<unsigned char> id(sizeof TesseraGroupSeat::id);
  if (api_->draw_group_id(id.data(), why.text, sizeof why.text) != 0)
    return why.error(name(), "names no group");
  return id;
}

Result<std::unique_ptr<Collective>> DevicePlugin::join_group(const TesseraGroupSeat& seat) const {
  Why why;
  Collective* group = api_->join_group(&seat, why.text, sizeof why.text);
  if (!group) return why.error(name(), "joins no group");
  return std::unique_ptr<Collective>(group);
}

}  // namespace tessera
