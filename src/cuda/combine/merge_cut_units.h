// Step 8 of docs/algorithm.md: merges the units that part boundaries cut, each row over the unit's splits i in order:
//
//   lse = ln sum_i exp(lse_i)      out = sum_i exp(lse_i - lse) o_i
//
// The work is dealt as the partials were: the n parts that share a unit share its items, so whatever n is, each part
// reads as much as it wrote, and no list of units is needed. A part has at most two cut units: the one it found begun
// and the one it left unfinished. An item is a row where splits are few, 256 or 128 columns of a row where they are
// many. A warp takes an item; where a share has fewer items than warps, several warps share an item's splits, and their
// sums are added in order. So the bits depend on the schedule alone, not on who merges a share.
#pragma once

#include "core/row_packing.h"
#include "cuda/combine/cut_unit.h"
#include "cuda/combine/gate.h"
#include "cuda/combine/merge_params.h"
#include "cuda/combine/warp_merge.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/tile/column_order.h"

namespace flash_mla::cuda {

inline constexpr int kVectorColumns = kWarpLanes * 4;  // a warp's vector of a row
static_assert(kVectorColumns == kScaledColumns);
inline constexpr int kRowVectors = kLatentDim / kVectorColumns;
inline constexpr int kFewSplits = 4;          // at most so many: whole rows
inline constexpr int kMostVectorsShared = 2;  // of an item whose splits several warps share

// Who merges: whole warps, the first of which is `first_warp` of the thread block; they meet at a named barrier.
template <int Warps>
struct Mergers {
  using Sums = float4[Warps][kMostVectorsShared][kWarpLanes];

  Sums& sums;
  int first_warp, barrier;

  __device__ int warp() const { return static_cast<int>(threadIdx.x) / kWarpLanes - first_warp; }
  __device__ void meet() const { ptx::sync_threads(barrier, Warps * kWarpLanes); }
};

// Four neighbouring positions of a row.
template <class Element, tile::ColumnOrder Order>
__device__ __forceinline__ void store_positions(Element* row, int position, float4 v) {
  Element* const to = row + tile::column_at<Order>(position);
  if constexpr (Order == tile::ColumnOrder::pairs) {  // two pairs, 8 columns from each other
    store2(to, v.x, v.y);
    store2(to + 8, v.z, v.w);
  } else {
    to[0] = static_cast<Element>(v.x);
    to[tile::kSliceColumns] = static_cast<Element>(v.y);
    to[2 * tile::kSliceColumns] = static_cast<Element>(v.z);
    to[3 * tile::kSliceColumns] = static_cast<Element>(v.w);
  }
}

// The result of one item; lane l has positions position + 128 v + 4 l ... of vector v.
template <class Element, tile::ColumnOrder Order, int kVectors>
__device__ __forceinline__ void store_item(const MergeParams& params, const CutUnit& unit, int row, int position,
                                           const float4 (&out)[kVectors], float lse) {
  const QueryHead at = unpack_row(unit.first_row + row, unit.kv_head, params.work.heads_per_kv);
  const std::int64_t token = params.work.first_query(unit.request) + at.query;
  const auto offset = [&](const RowsView& view) {
    return unit.request * view.batch_stride + token * view.token_stride + at.head * view.head_stride;
  };
  Element* const to = static_cast<Element*>(params.out.data) + offset(params.out);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) store_positions<Element, Order>(to, position + v * kVectorColumns, out[v]);
  if (position == 0 && params.lse.data != nullptr) {
    static_cast<float*>(params.lse.data)[offset(params.lse)] = lse_for_api(lse);
  }
}

// Adds the sums of the warps that share an item, in order, for the first of them. All mergers call.
template <int Warps, int kVectors>
__device__ __forceinline__ void add_warps(const Mergers<Warps>& mergers, int warps_per_item, float4 (&sum)[kVectors]) {
  static_assert(kVectors <= kMostVectorsShared);
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = mergers.warp();
  mergers.meet();  // the last item's sums have been read
#pragma unroll
  for (int v = 0; v < kVectors; ++v) mergers.sums[warp][v][lane] = sum[v];
  mergers.meet();
  if (warp % warps_per_item != 0) return;
#pragma unroll 1
  for (int other = warp + 1; other < warp + warps_per_item; ++other) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const float4 more = mergers.sums[other][v][lane];
      sum[v].x += more.x, sum[v].y += more.y, sum[v].z += more.z, sum[v].w += more.w;
    }
  }
}

// The items of a unit that belong to share `share`, kVectors * 128 columns each.
template <class Element, tile::ColumnOrder Order, int kVectors, int kInFlight, int Warps>
__device__ __forceinline__ void merge_share(const Mergers<Warps>& mergers, const MergeParams& params,
                                            const CutUnit& unit, int share) {
  constexpr int kItemsPerRow = kRowVectors / kVectors;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = mergers.warp();
  if (share >= unit.num_rows * kItemsPerRow) return;
  const int items = ceil_div(unit.num_rows * kItemsPerRow - share, unit.num_splits);
  int warps_per_item = 1;  // more than one: there is no more than an item a warp, so the loop runs once
  if constexpr (kVectors <= kMostVectorsShared) {
    while (2 * warps_per_item * items <= Warps && warps_per_item * kInFlight < unit.num_splits) warps_per_item *= 2;
  }
  const int splits = ceil_div(unit.num_splits, warps_per_item), begin = warp % warps_per_item * splits;

#pragma unroll 1
  for (int done = 0; done < items; done += Warps / warps_per_item) {
    const int i = done + warp / warps_per_item;
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
    if (i < items) {
      merged = warp_merge<kInFlight>(unit.num_splits, begin, min_of(begin + splits, unit.num_splits), lse_of, scale_of,
                                     load, sum);
    }
    if constexpr (kVectors <= kMostVectorsShared) {
      if (warps_per_item > 1) add_warps(mergers, warps_per_item, sum);
    }
    if (i < items && warp % warps_per_item == 0) {
      store_item<Element, Order>(params, unit, row, position, sum, merged.lse());
    }
  }
}

// What an item is, and how many splits of it are under way at a time: about 4 KB a warp. All mergers call.
template <class Element, tile::ColumnOrder Order, int kMostInFlight, int Warps>
__device__ __forceinline__ void merge_shares(const Mergers<Warps>& mergers, const MergeParams& params,
                                             const CutUnit& unit, Shares shares) {
#pragma unroll 1
  for (int share = shares.first; share <= shares.last; ++share) {
    if (unit.num_splits <= kFewSplits) {
      merge_share<Element, Order, kRowVectors, 2>(mergers, params, unit, share);
    } else if (unit.num_splits <= kWarpLanes) {
      merge_share<Element, Order, 2, 8>(mergers, params, unit, share);
    } else {
      merge_share<Element, Order, 1, kMostInFlight>(mergers, params, unit, share);
    }
  }
}

}  // namespace flash_mla::cuda
