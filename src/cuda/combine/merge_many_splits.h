// The merge of units in many splits. An item is 256 columns of a row, 128 where splits are more than a warp has lanes.
// A warp takes an item; where a share has fewer items than warps, several warps share an item's splits, and their sums
// are added in order.
#pragma once

#include "cuda/combine/merged_row.h"
#include "cuda/combine/small_divisor.h"
#include "cuda/ptx/warpgroup.h"

namespace flash_mla::cuda {

inline constexpr int kMostVectors = 2;  // of an item

// Who merges: whole warps, the first of which is `first_warp` of the thread block; they meet at a named barrier.
template <int Warps>
struct Mergers {
  using Sums = float4[Warps][kMostVectors][kWarpLanes];

  Sums& sums;
  int first_warp, barrier;

  __device__ int warp() const { return static_cast<int>(threadIdx.x) / kWarpLanes - first_warp; }
  __device__ void meet() const { ptx::sync_threads(barrier, Warps * kWarpLanes); }
};

// Adds the sums of the warps that share an item, in order, for the first of them. All mergers call.
template <int Warps, int kVectors>
__device__ __forceinline__ void add_warps(const Mergers<Warps>& mergers, int warps_per_item, float4 (&sum)[kVectors]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = mergers.warp();
  mergers.meet();  // the last item's sums have been read
#pragma unroll
  for (int v = 0; v < kVectors; ++v) mergers.sums[warp][v][lane] = sum[v];
  mergers.meet();
  if ((warp & (warps_per_item - 1)) != 0) return;
#pragma unroll 1
  for (int other = warp + 1; other < warp + warps_per_item; ++other) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) add(sum[v], 1.0f, mergers.sums[other][v][lane]);
  }
}

// The items of a unit that belong to share `share`, of kVectors * 128 columns; loads of kInFlight splits are under way
// at a time.
template <class Element, tile::ColumnOrder Order, int kVectors, int kInFlight, int Warps>
__device__ __forceinline__ void merge_items(const Mergers<Warps>& mergers, const MergeParams& params,
                                            const CutUnit& unit, int share) {
  constexpr int kItemsPerRow = kRowVectors / kVectors;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = mergers.warp();
  if (share >= unit.num_rows * kItemsPerRow) return;
  const int items = SmallDivisor(unit.num_splits).rounded_up(unit.num_rows * kItemsPerRow - share);
  int shift = 0;  // 2^shift warps share an item; if several, there is no more than an item a warp: the loop runs once
  while (items << (shift + 1) <= Warps && kInFlight << shift < unit.num_splits) ++shift;
  const int warps_per_item = 1 << shift, nth = warp & (warps_per_item - 1);
  const int splits = (unit.num_splits + warps_per_item - 1) >> shift, begin = nth * splits;

#pragma unroll 1
  for (int done = 0; done < items; done += Warps >> shift) {
    const int i = done + (warp >> shift);
    const int item = share + i * unit.num_splits, row = item / kItemsPerRow;
    const int vector = item % kItemsPerRow * kVectors, position = vector * kVectorColumns + lane * 4;
    const int stride = params.work.rows_per_unit;  // rows from split to split
    const std::int64_t first_row = unit.first_slot * static_cast<std::int64_t>(stride) + unit.row_in_unit + row;
    const PartialRow* const rows = params.partials.rows + first_row;
    const __half* const values = reinterpret_cast<const __half*>(params.partials.values_of(first_row)) + position;
    const auto lse_of = [&](int split) { return __ldcg(&rows[static_cast<std::int64_t>(split) * stride].lse); };
    const auto scale_of = [&](int split, int v) {
      return __ldcg(&rows[static_cast<std::int64_t>(split) * stride].scale[vector + v]);
    };
    const auto load = [&](int begin_of_round, int i, int v) {
      return load4(values + static_cast<std::int64_t>(begin_of_round) * stride * kLatentDim + i * stride * kLatentDim +
                   v * kVectorColumns);
    };
    float4 sum[kVectors] = {};
    MergedLse merged;
    RowPlace place;
    if (i < items) {
      merged = warp_merge<kInFlight>(unit.num_splits, begin, min_of(begin + splits, unit.num_splits), lse_of, scale_of,
                                     load, sum, [&] { place = place_of_row(params, unit, row); });
    }
    if (shift > 0) add_warps(mergers, warps_per_item, sum);
    if (i < items && nth == 0) {
      store_item<Element, Order>(params, place, position, sum, merged.lse());
    }
  }
}

// kInFlight: of 128 columns, where splits are more than a warp has lanes.
template <class Element, tile::ColumnOrder Order, int kInFlight, int Warps>
__device__ __forceinline__ void merge_many_splits(const Mergers<Warps>& mergers, const MergeParams& params,
                                                  const CutUnit& unit, int share) {
  if (unit.num_splits <= kWarpLanes) {
    merge_items<Element, Order, 2, 8>(mergers, params, unit, share);
  } else {
    merge_items<Element, Order, 1, kInFlight>(mergers, params, unit, share);
  }
}

}  // namespace flash_mla::cuda
