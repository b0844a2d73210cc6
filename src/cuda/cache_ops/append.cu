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
constexpr int kTokensPerThreadBlock = 4;
constexpr unsigned kMaxThreadBlocks = 1 << 20, kMaxHeads = 1 << 15;  // of the grid; more are walked in strides

__device__ Vector* vector_at(void* base, std::int64_t element_offset, int vector) {
  return reinterpret_cast<Vector*>(static_cast<char*>(base) + element_offset * kElementBytes) + vector;
}

// The compiler moves a plain load behind the test that its value needs, so that it waits for the slot; __ldlu stays
// where it stands, as long as the store is predicated and not branched around. The value is read once.
__device__ Vector load_now(const Vector* from) { return __ldlu(from); }

__global__ void __launch_bounds__(kRowVectors* kTokensPerThreadBlock)
    append(const __grid_constant__ AppendProblem problem) {
  const bool is_rope = threadIdx.x >= kLatentVectors;
  const int vector = static_cast<int>(threadIdx.x) - (is_rope ? kLatentVectors : 0);
  const RowsView& from = is_rope ? problem.k_pe : problem.c_kv;
  const PagesView& to = is_rope ? problem.cache.rope : problem.cache.latent;
  const std::int64_t page_size = problem.cache.page_size, slots = problem.cache.num_pages * page_size;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTokensPerThreadBlock + threadIdx.y;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kTokensPerThreadBlock;

  for (std::int64_t token = first; token < problem.tokens; token += stride) {
    for (std::int64_t head = blockIdx.y; head < problem.num_heads_kv; head += gridDim.y) {
      const Vector value = load_now(vector_at(from.data, token * from.token_stride + head * from.head_stride, vector));
      const std::int64_t slot = problem.slots[token * problem.slots_stride];
      const bool in_range = slot >= 0 && slot < slots;
      const std::int64_t page = in_range ? slot / page_size : 0, row = in_range ? slot % page_size : 0;
      Vector* stored =
          vector_at(to.data, page * to.page_stride + row * to.token_stride + head * to.head_stride, vector);
      if (in_range) *stored = value;
    }
  }
}

}  // namespace

Status launch_append(const AppendProblem& problem, cudaStream_t stream) noexcept {
  if (problem.tokens == 0 || problem.cache.num_pages == 0) return {};
  AppendProblem argument = problem;
  void* arguments[] = {&argument};
  const std::int64_t thread_blocks = ceil_div<std::int64_t>(problem.tokens, kTokensPerThreadBlock);
  const dim3 grid(static_cast<unsigned>(min_of<std::int64_t>(thread_blocks, kMaxThreadBlocks)),
                  min_of(static_cast<unsigned>(problem.num_heads_kv), kMaxHeads));
  FLASH_MLA_CUDA_TRY(cudaLaunchKernel, reinterpret_cast<const void*>(&append), grid,
                     dim3(kRowVectors, kTokensPerThreadBlock), arguments, 0, stream);
  return {};
}

}  // namespace flash_mla::cuda
