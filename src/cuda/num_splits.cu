// Counts the splits of each request (schedule/num_splits.h) with one thread block: a thread a request, then a prefix
// sum over the thread block's requests, as many rounds as the batch takes. Runs where a caller asks for num_splits,
// once a step; decode does not read them.
#include "cuda/block_scan.h"
#include "cuda/num_splits.h"
#include "cuda/runtime.h"
#include "schedule/num_splits.h"

namespace flash_mla::cuda {
namespace {

constexpr int kMaxThreads = 512;

__global__ void __launch_bounds__(kMaxThreads, 1)
    count_splits_kernel(const void* schedule_memory, std::int32_t num_parts, std::int32_t batch,
                        std::int32_t* num_splits) {
  __shared__ BlockScratch<std::int32_t> scratch;
  const ScheduleHeader header = *ScheduleLayout::header(schedule_memory);
  const PartRecord* parts = ScheduleLayout::parts(schedule_memory);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  if (thread == 0) num_splits[0] = 0;
  std::int32_t sum = 0;
  FLASH_MLA_NO_UNROLL for (std::int32_t first = 0; first < batch; first += threads) {
    const std::int32_t request = first + thread;
    const std::int32_t own = request < batch ? splits_of_request(header, parts, num_parts, request) : 0;
    const Scanned<std::int32_t> scanned = block_scan(own, scratch);
    if (request < batch) num_splits[request + 1] = sum + scanned.before + own;
    sum += scanned.total;
  }
}

}  // namespace

Status launch_num_splits(const void* schedule_memory, std::int32_t num_parts, std::int32_t batch,
                         std::int32_t* num_splits, cudaStream_t stream) noexcept {
  const std::int32_t threads = round_up(min_of(max_of(batch, 1), kMaxThreads), kWarpLanes);
  void* arguments[] = {&schedule_memory, &num_parts, &batch, &num_splits};
  FLASH_MLA_CUDA_TRY(cudaLaunchKernel, reinterpret_cast<const void*>(&count_splits_kernel), dim3(1),
                     dim3(static_cast<unsigned>(threads)), arguments, 0, stream);
  return {};
}

}  // namespace flash_mla::cuda
