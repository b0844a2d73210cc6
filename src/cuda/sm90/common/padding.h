// Ragged queries: tokens of q past the last request's belong to nobody and get out = 0, lse = +inf. All thread blocks
// share them; one warpgroup of each calls.
#pragma once

#include "core/online_softmax.h"
#include "cuda/sm90/common/geometry.h"
#include "cuda/sm90/common/params.h"

namespace flash_mla::sm90 {

template <class Element>
__device__ __forceinline__ void write_padding(const DecodeParams& params) {
  if (params.work.cu_seqlens_q == nullptr) return;
  constexpr int kRowWarps = kLatentDim * sizeof(Element) / (32 * sizeof(uint4));  // 16 bytes a lane
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kWarpgroupWarps;
  const int heads = params.work.heads_per_kv * params.work.num_heads_kv;
  const std::int64_t first = params.work.cu_seqlens_q[params.work.batch];
  const std::int64_t rows = (params.total_q - first) * heads;
  for (std::int64_t row = blockIdx.x * kWarpgroupWarps + warp; row < rows; row += gridDim.x * kWarpgroupWarps) {
    const std::int64_t token = first + row / heads, head = row % heads;
    Element* out =
        static_cast<Element*>(params.out.data) + token * params.out.token_stride + head * params.out.head_stride;
#pragma unroll
    for (int i = 0; i < kRowWarps; ++i) reinterpret_cast<uint4*>(out)[i * 32 + lane] = uint4{0, 0, 0, 0};
    if (lane == 0 && params.lse.data != nullptr) {
      static_cast<float*>(params.lse.data)[token * params.lse.token_stride + head * params.lse.head_stride] =
          kPositiveInfinity;
    }
  }
}

}  // namespace flash_mla::sm90
