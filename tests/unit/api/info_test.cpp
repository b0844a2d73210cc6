// backends(), kernels(), device_info(): the CPU is always there, and every entry has its name.
#include "flash_mla/info.h"

#include <gtest/gtest.h>

#include <cstring>

#include "flash_mla/version.h"
#include "unit/api/calls.h"

namespace flash_mla::test {
namespace {

TEST(Info, ListsTheCpuAndItsKernels) {
  ASSERT_FALSE(backends().empty());
  const BackendInfo& cpu = backends()[0];
  EXPECT_EQ(cpu.type, DeviceType::cpu);
  EXPECT_TRUE(cpu.available);
  EXPECT_EQ(cpu.device_count, 1);
  EXPECT_EQ(backends().data(), backends().data()) << "static storage";
  for (const BackendInfo& backend : backends()) EXPECT_GT(std::strlen(backend.name) * std::strlen(backend.reason), 0u);
  ASSERT_FALSE(kernels().empty());
  for (const KernelInfo& kernel : kernels()) EXPECT_GT(std::strlen(kernel.name), 0u);
}

TEST(Info, DescribesTheCpu) {
  const Result<DeviceInfo> info = device_info({});
  ASSERT_TRUE(info.ok()) << info.status().message();
  EXPECT_GT(std::strlen(info->name), 0u);
  EXPECT_GE(info->workers, 1);
  EXPECT_GT(info->memory_bytes, 0);
}

TEST(Info, NamesTheDeviceThatIsNotThere) {
  expect_refused(device_info({DeviceType::cpu, 1}).status(), {"device.index is 1"});
  expect_refused(device_info({DeviceType{5}, 0}).status(), {"device.type is 5"});
}

TEST(Version, IsThatOfTheHeader) {
  const std::string expected = std::to_string(FLASH_MLA_VERSION_MAJOR) + "." + std::to_string(FLASH_MLA_VERSION_MINOR) +
                               "." + std::to_string(FLASH_MLA_VERSION_PATCH);
  EXPECT_EQ(version(), expected);
}

}  // namespace
}  // namespace flash_mla::test
