// See guarded_memory.h.
#include "device/guarded_memory.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>

#include "device/driver.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

struct Mapping {
  CUdeviceptr address = 0;
  std::size_t mapped_bytes = 0, reserved_bytes = 0;
  CUmemGenericAllocationHandle handle = 0;
};

Mapping make_mapping(std::size_t bytes) {
  int device = 0;
  FLASH_MLA_REQUIRE(cudaGetDevice(&device));
  FLASH_MLA_REQUIRE(cudaFree(nullptr));  // the runtime's context exists and is current
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
  std::size_t granularity = 0;
  FLASH_MLA_DRIVER(cuMemGetAllocationGranularity, &granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);

  Mapping mapping;
  mapping.mapped_bytes = (std::max<std::size_t>(bytes, 1) + granularity - 1) / granularity * granularity;
  mapping.reserved_bytes = mapping.mapped_bytes + granularity;
  FLASH_MLA_DRIVER(cuMemAddressReserve, &mapping.address, mapping.reserved_bytes, std::size_t{0}, CUdeviceptr{0}, 0ull);
  FLASH_MLA_DRIVER(cuMemCreate, &mapping.handle, mapping.mapped_bytes, &properties, 0ull);
  FLASH_MLA_DRIVER(cuMemMap, mapping.address, mapping.mapped_bytes, std::size_t{0}, mapping.handle, 0ull);
  CUmemAccessDesc access = {};
  access.location = properties.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  FLASH_MLA_DRIVER(cuMemSetAccess, mapping.address, mapping.mapped_bytes, &access, std::size_t{1});
  return mapping;
}

void release(const Mapping& mapping) noexcept {
  try {
    cudaDeviceSynchronize();
    FLASH_MLA_DRIVER(cuMemUnmap, mapping.address, mapping.mapped_bytes);
    FLASH_MLA_DRIVER(cuMemRelease, mapping.handle);
    FLASH_MLA_DRIVER(cuMemAddressFree, mapping.address, mapping.reserved_bytes);
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
}

}  // namespace

std::shared_ptr<void> guarded_memory(std::int64_t bytes) {
  const Mapping mapping = make_mapping(static_cast<std::size_t>(bytes));
  const std::size_t alignment = bytes % 16 == 0 ? 16 : 4;
  const std::size_t size = (static_cast<std::size_t>(bytes) + alignment - 1) / alignment * alignment;
  void* data = reinterpret_cast<void*>(mapping.address + mapping.mapped_bytes - size);  // NOLINT: an address
  return {data, [mapping](void*) { release(mapping); }};
}

}  // namespace flash_mla::test
