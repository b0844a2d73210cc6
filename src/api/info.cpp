// backends(), kernels(), device_info(): what the registered backends say of themselves.
#include "flash_mla/info.h"

#include <array>
#include <cstddef>
#include <new>
#include <vector>

#include "api/message.h"
#include "api/registry.h"
#include "api/validate.h"

namespace flash_mla {
namespace {

struct BackendTable {
  std::array<BackendInfo, 2> rows;
  std::size_t size = 0;

  BackendTable() noexcept {
    for (const Backend* backend : {cpu_backend(), cuda_backend()}) {
      if (backend) rows[size++] = backend->info();
    }
  }
};

std::vector<KernelInfo> all_kernels() {
  std::vector<KernelInfo> all;
  for (const Backend* backend : {cpu_backend(), cuda_backend()}) {
    if (!backend) continue;
    const std::span<const KernelInfo> own = backend->kernels();
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

}  // namespace

std::span<const BackendInfo> backends() noexcept {
  static const BackendTable table;
  return {table.rows.data(), table.size};
}

std::span<const KernelInfo> kernels() noexcept {
  try {
    static const std::vector<KernelInfo> table = all_kernels();
    return table;
  } catch (const std::bad_alloc&) {  // out of memory; the next call tries again
    return {};
  }
}

Result<DeviceInfo> device_info(Device device) noexcept {
  const Backend* backend = nullptr;
  FLASH_MLA_RETURN_IF_ERROR(find_backend(device, "device", &backend));
  FLASH_MLA_RETURN_IF_ERROR(validate_device(device, "device", *backend));
  return backend->device_info(device.index);
}

}  // namespace flash_mla
