// The merge of units cut in two, as most are in large batches of many rows: all that a warp merges, of both cut units
// of its part, comes to shared memory in one round trip. The other units: merge_cut_units.h.
#pragma once

#include "cuda/combine/merge_cut_units.h"
#include "cuda/ptx/bulk_copy.h"
#include "cuda/ptx/fence.h"

namespace flash_mla::cuda {

inline constexpr int kTwoSplitsRows = 4;  // that a warp merges of a unit, at most
inline constexpr int kRowBytes = kLatentDim * 2;
inline constexpr int kWarpStagingBytes = 2 * kTwoSplitsRows * 2 * kRowBytes;  // two units, two splits

__device__ __forceinline__ bool has_two_splits(const CutUnit& unit, Shares shares) {
  return unit.num_splits == 2 && shares.first == shares.last;
}

// The warp has rows first, first + 2, ... of a unit. Lane 8 u + 2 j + i works for split i of the j-th row of unit u: it
// asks for the values and makes the factor. `staging` and `landed` are the warp's, used once.
template <class Element, tile::ColumnOrder Order>
__device__ __forceinline__ void merge_two_splits(const MergeParams& params, const CutUnit (&units)[2],
                                                 const Shares (&shares)[2], int warp, unsigned char* staging,
                                                 ptx::Barrier& landed) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, u = lane / 8 % 2;
  const int stride = params.work.rows_per_unit;
  const auto row_of = [&](int unit, int j) { return 2 * (warp * kTwoSplitsRows + j) + shares[unit].first; };
  const int row = row_of(u, lane % 8 / 2);
  const bool present = lane < 16 && has_two_splits(units[u], shares[u]) && row < units[u].num_rows;
  const unsigned all_present = __ballot_sync(kAllLanes, present);
  if (all_present == 0) return;
  if (lane == 0) landed.arrive_expecting(__popc(all_present) * kRowBytes);
  __syncwarp();

  float lse = kNegativeInfinity;
  float4 factor = {};
  if (present) {
    const std::int64_t partial_row =
        (units[u].first_slot + lane % 2) * static_cast<std::int64_t>(stride) + units[u].row_in_unit + row;
    ptx::fence_async_global();
    ptx::bulk_load(staging + lane * kRowBytes, params.partials.values_of(partial_row), kRowBytes, landed);
    lse = __ldcg(&params.partials.rows[partial_row].lse);
    factor = __ldcg(reinterpret_cast<const float4*>(params.partials.rows[partial_row].scale));
  }
  const float other = __shfl_xor_sync(kAllLanes, lse, 1);
  MergedLse merged{finite_reference(fmaxf(lse, other)), 0.0f};
  merged.sum = expf(lse - merged.reference) + expf(other - merged.reference);
  const float weight = merged.factor(lse), merged_lse = merged.lse();
  factor = {factor.x * weight, factor.y * weight, factor.z * weight, factor.w * weight};

  landed.wait(0);
#pragma unroll 1
  for (int first = 0; first < 16; first += 2) {  // lanes of a row
    if ((all_present >> first & 1) == 0) continue;
    float4 sum[kRowVectors] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (__shfl_sync(kAllLanes, weight, first + i) == 0.0f) continue;  // it may hold anything
      const float of_vector[kRowVectors] = {
          __shfl_sync(kAllLanes, factor.x, first + i), __shfl_sync(kAllLanes, factor.y, first + i),
          __shfl_sync(kAllLanes, factor.z, first + i), __shfl_sync(kAllLanes, factor.w, first + i)};
      const auto* const values = reinterpret_cast<const __half*>(staging + (first + i) * kRowBytes) + 4 * lane;
#pragma unroll
      for (int v = 0; v < kRowVectors; ++v) {
        Four<__half> o;
        o.bits = *reinterpret_cast<const uint2*>(values + v * kVectorColumns);
        add(sum[v], of_vector[v], widen(o));
      }
    }
    store_item<Element, Order>(params, units[first / 8], row_of(first / 8, first % 8 / 2), 4 * lane, sum,
                               __shfl_sync(kAllLanes, merged_lse, first));
  }
}

}  // namespace flash_mla::cuda
