#include "cuda/host_schedule.h"

#include <vector>

#include "cuda/runtime.h"
#include "cuda/work_of.h"
#include "schedule/partition.h"

namespace flash_mla::cuda {

Status schedule_on_host(const Plan& plan, const BatchView& batch, void* schedule_memory, cudaStream_t stream) noexcept {
  const PlanConfig& config = plan.config();
  const auto requests = static_cast<std::size_t>(batch.batch);
  std::vector<std::int32_t> lengths(requests), offsets(batch.cu_seqlens_q ? requests + 1 : 0);
  if (requests > 0) {
    FLASH_MLA_CUDA_TRY(cudaMemcpy2DAsync, lengths.data(), 4, batch.cache_seqlens,
                       static_cast<std::size_t>(batch.cache_seqlens_stride) * 4, 4, requests, cudaMemcpyDefault,
                       stream);
  }
  if (!offsets.empty()) {
    FLASH_MLA_CUDA_TRY(cudaMemcpyAsync, offsets.data(), batch.cu_seqlens_q, offsets.size() * 4, cudaMemcpyDefault,
                       stream);
  }
  FLASH_MLA_CUDA_TRY(cudaStreamSynchronize, stream);
  Work work = work_of(batch, config.num_heads_q, config.num_heads_kv, config.causal, plan.rows_per_unit());
  work.cache_seqlens = lengths.data();
  work.cache_seqlens_stride = 1;
  if (!offsets.empty()) work.cu_seqlens_q = offsets.data();
  const CostModel cost{PlanAccess::cost_fixed(plan), PlanAccess::cost_block(plan), PlanAccess::cost_merge(plan)};
  std::vector<std::byte> memory(static_cast<std::size_t>(plan.schedule_bytes()));
  make_schedule(work, cost, plan.num_parts(), memory.data());
  FLASH_MLA_CUDA_TRY(cudaMemcpyAsync, schedule_memory, memory.data(), memory.size(), cudaMemcpyDefault, stream);
  FLASH_MLA_CUDA_TRY(cudaStreamSynchronize, stream);
  return {};
}

}  // namespace flash_mla::cuda
