// See late_writer.h.
#include "device/gpu.h"
#include "device/late_writer.h"
#include "device/patience.cuh"
#include "device/row_walk.cuh"

namespace flash_mla::test {
namespace {

__global__ void late_copy_kernel(std::uint32_t* to, const std::uint32_t* from, std::int64_t words,
                                 std::int64_t delay_ns) {
  cudaTriggerProgrammaticLaunchCompletion();
  const std::int64_t start = nanoseconds();
  while (nanoseconds() - start < delay_ns) {
  }
  for (std::int64_t i = walk_start(); i < words; i += walk_stride()) to[i] = from[i];
}

}  // namespace

void copy_late(void* to, const void* from, std::int64_t bytes, int delay_us, cudaStream_t stream) {
  // Few thread blocks: successors find room beside them.
  late_copy_kernel<<<16, kWalkThreads, 0, stream>>>(static_cast<std::uint32_t*>(to),
                                                    static_cast<const std::uint32_t*>(from), bytes / 4,
                                                    std::int64_t{delay_us} * 1000);
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

}  // namespace flash_mla::test
