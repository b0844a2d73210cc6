// Writes new tokens into their slots: for token i and kv head h
//
//   latent[slot / page_size, slot % page_size, h, :] = c_kv[i, h, :]     slot = slots[i]
//   rope  [slot / page_size, slot % page_size, h, :] = k_pe[i, h, :]
//
// A thread moves 16 bytes, 72 threads a row of 576. The row's vector is requested before its slot is known, so the two
// reads wait for memory together; that latency is all there is to it up to thousands of tokens.
#include "core/int_math.h"
#include "cuda/cache_ops/cache_ops.h"
#include "cuda/runtime.h"
#include "flash_mla/plan.h"

namespace flash_mla::cuda {
namespace {

using Vector = uint4;

constexpr int kElementBytes = 2;  // bf16 and f16; the API refuses f32 on this device
constexpr int kLatentVectors = kLatentDim * kElementBytes / static_cast<int>(sizeof(Vector));
constexpr int kRowVectors = kHeadDim * kElementBytes / static_cast<int>(sizeof(Vector));
constexpr int kRowsPerThreadBlock = 4;
constexpr int kThreads = kRowsPerThreadBlock * kRowVectors;
constexpr std::int64_t kMaxThreadBlocks = 1 << 20;  // more rows than these take are walked in strides

template <class View>
__device__ std::int64_t row_offset(const View& view, std::int64_t token, std::int64_t head) {
  return token * view.token_stride + head * view.head_stride;
}

__device__ Vector* vector_at(void* base, std::int64_t element_offset, int vector) {
  return reinterpret_cast<Vector*>(static_cast<char*>(base) + element_offset * kElementBytes) + vector;
}

__global__ void __launch_bounds__(kThreads) append(const __grid_constant__ AppendProblem problem) {
  const bool is_rope = threadIdx.x % kRowVectors >= kLatentVectors;
  const int vector = threadIdx.x % kRowVectors - (is_rope ? kLatentVectors : 0);
  const RowsView& from = is_rope ? problem.k_pe : problem.c_kv;
  const PagesView& to = is_rope ? problem.cache.rope : problem.cache.latent;
  const std::int64_t page_size = problem.cache.page_size, slots = problem.cache.num_pages * page_size;
  const std::int64_t rows = problem.tokens * problem.num_heads_kv;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kRowsPerThreadBlock;

  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRowsPerThreadBlock + threadIdx.x / kRowVectors;
       row < rows; row += stride) {
    const std::int64_t token = row / problem.num_heads_kv, head = row % problem.num_heads_kv;
    const Vector value = *vector_at(from.data, row_offset(from, token, head), vector);
    const std::int64_t slot = problem.slots[token * problem.slots_stride];
    if (slot < 0 || slot >= slots) continue;
    *vector_at(to.data, slot / page_size * to.page_stride + row_offset(to, slot % page_size, head), vector) = value;
  }
}

}  // namespace

Status launch_append(const AppendProblem& problem, cudaStream_t stream) noexcept {
  if (problem.tokens == 0 || problem.cache.num_pages == 0) return {};
  AppendProblem argument = problem;
  void* arguments[] = {&argument};
  const std::int64_t thread_blocks =
      min_of(ceil_div<std::int64_t>(problem.tokens * problem.num_heads_kv, kRowsPerThreadBlock), kMaxThreadBlocks);
  FLASH_MLA_CUDA_TRY(cudaLaunchKernel, reinterpret_cast<const void*>(&append),
                     dim3(static_cast<unsigned>(thread_blocks)), dim3(kThreads), arguments, 0, stream);
  return {};
}

}  // namespace flash_mla::cuda
