// The host side of device plug-ins, with a fake one; and, in a CUDA build, the real one: without a GPU it
// must say so.
#include "launch/device_plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace tessera {
namespace {

using testing::HasSubstr;

TEST(DevicePlugin, AnAgreeingPluginIsOpenedAndItsReasonsAreHeard) {
  const auto plugin = DevicePlugin::open(TESSERA_FAKE_DEVICE);
  ASSERT_TRUE(plugin.ok()) << plugin.error().message;
  EXPECT_EQ(plugin->name(), "fake");
  EXPECT_EQ(*plugin->device_count(), 2);
  EXPECT_TRUE(plugin->self_test(1).ok());
  EXPECT_THAT(plugin->self_test(2).error().message, HasSubstr("there is no device 2"));

  TesseraGroupSeat seat{{}, 0, 1, 0};
  const auto id = plugin->draw_group_id();
  ASSERT_TRUE(id.ok());
  std::copy(id->begin(), id->end(), seat.id);
  const auto group = plugin->join_group(seat);
  ASSERT_TRUE(group.ok());
  EXPECT_TRUE((*group)->barrier().ok());
  seat.size = 2;
  EXPECT_THAT(plugin->join_group(seat).error().message, HasSubstr("nobody else came"));
}

TEST(DevicePlugin, AnotherVersionIsRefused) {
  const auto plugin = DevicePlugin::open(TESSERA_OLD_DEVICE);
  ASSERT_FALSE(plugin.ok());
  EXPECT_THAT(plugin.error().message, HasSubstr("build both from the same sources"));
}

TEST(DevicePlugin, AMissingOneIsNamedWithTheWayOut) {
  const auto absent = DevicePlugin::find("nonesuch");
  ASSERT_FALSE(absent.ok());
  EXPECT_EQ(absent.error().code, ExitCode::usage);
  EXPECT_THAT(absent.error().message,
              testing::AllOf(HasSubstr("tessera_nonesuch.so"), HasSubstr("cmake --preset cuda")));
  EXPECT_THAT(DevicePlugin::open("/proc/none.so").error().message, HasSubstr("/proc/none.so"));
}

TEST(DevicePlugin, AnyOtherLibraryIsNotTakenForOne) {
  const auto plugin = DevicePlugin::open("libm.so.6");
  ASSERT_FALSE(plugin.ok());
  EXPECT_THAT(plugin.error().message, HasSubstr("tessera_device_api"));
}

}  // namespace
}  // namespace tessera
