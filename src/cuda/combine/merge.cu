// One warp merges one row of all shards:
//
//   lse = ln sum_i exp(lse_i)      out = sum_i exp(lse_i - lse) o_i        over shards i, in their order
//
// A shard in which the row saw no token (lse_i = +inf or -inf) does not count, whatever it holds. A lane holds 16 of
// the 512 columns.
#include "core/int_math.h"
#include "cuda/combine/merge.h"
#include "cuda/combine/warp_merge.h"
#include "cuda/runtime.h"
#include "flash_mla/plan.h"

namespace flash_mla::cuda {
namespace {

constexpr int kWarps = 4;  // rows that a thread block merges at a time
constexpr int kVectors = kLatentDim / kWarpLanes / 4;
constexpr int kInFlight = 4;                        // shards
constexpr std::int64_t kMaxThreadBlocks = 1 << 20;  // more rows are walked in strides

template <class In, class Out>
__global__ void __launch_bounds__(kWarps* kWarpLanes) merge_rows(const __grid_constant__ MergeProblem problem) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const auto shards = static_cast<int>(problem.shards);
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kWarps;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp; row < problem.rows; row += stride) {
    const float* lse = problem.partial_lse + row * problem.partial_lse_row_stride;
    const In* partial = static_cast<const In*>(problem.partial_out) + row * problem.partial_out_row_stride;
    const auto lse_of = [&](int shard) { return lse_from_api(lse[shard * problem.partial_lse_shard_stride]); };
    const auto load = [&](int first, int i, int vector) {
      return load4(partial + (first + i) * problem.partial_out_shard_stride + (vector * kWarpLanes + lane) * 4);
    };
    float4 sum[kVectors] = {};
    const MergedLse merged = warp_merge<kInFlight>(
        shards, 0, shards, lse_of, [](int, int) { return 1.f; }, load, sum);

    Out* out = static_cast<Out*>(problem.out) + row * problem.out_row_stride;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) store4(out + (v * kWarpLanes + lane) * 4, sum[v]);
    if (lane == 0 && problem.lse != nullptr) problem.lse[row * problem.lse_stride] = lse_for_api(merged.lse());
  }
}

template <class In>
const void* kernel_for(DType out) {
  switch (out) {
    case DType::bf16:
      return reinterpret_cast<const void*>(&merge_rows<In, __nv_bfloat16>);
    case DType::f16:
      return reinterpret_cast<const void*>(&merge_rows<In, __half>);
    default:
      return reinterpret_cast<const void*>(&merge_rows<In, float>);
  }
}

const void* kernel_for(DType in, DType out) {
  switch (in) {
    case DType::bf16:
      return kernel_for<__nv_bfloat16>(out);
    case DType::f16:
      return kernel_for<__half>(out);
    default:
      return kernel_for<float>(out);
  }
}

}  // namespace

Status launch_merge(const MergeProblem& problem, cudaStream_t stream) noexcept {
  if (problem.rows == 0) return {};
  MergeProblem argument = problem;
  void* arguments[] = {&argument};
  const std::int64_t thread_blocks = min_of(ceil_div<std::int64_t>(problem.rows, kWarps), kMaxThreadBlocks);
  FLASH_MLA_CUDA_TRY(cudaLaunchKernel, kernel_for(problem.partial_dtype, problem.out_dtype),
                     dim3(static_cast<unsigned>(thread_blocks)), dim3(kWarps * kWarpLanes), arguments, 0, stream);
  return {};
}

}  // namespace flash_mla::cuda
