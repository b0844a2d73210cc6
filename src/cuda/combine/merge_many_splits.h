// The merge of units in many splits. An item is 256 columns of a row; 128, narrow, where that makes no more items than
// warps and all splits' loads are under way at a time, or where splits are more than a warp has lanes.
// A warp takes an item; where a share has fewer items than warps, several warps share an item's splits, and their sums
// are added in order.
#pragma once

#include "cuda/combine/merged_row.h"
#include "cuda/combine/small_divisor.h"
#include "cuda/ptx/warpgroup.h"

namespace flash_mla::cuda {

// How items are cut: vectors an item has, and loads of splits that are under way at a time.
struct ItemShape {
  int vectors, in_flight;
};
inline constexpr ItemShape kWide = {2, 8};

// Who merges: whole warps, the first of which is `first_warp` of the thread block; they meet at a named barrier.
template <int Warps>
struct Mergers {
  using Sums = float4[Warps][kWide.vectors][kWarpLanes];

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

// kInFlight: of narrow items.
template <int kInFlight, int Warps>
__device__ __forceinline__ ItemShape item_shape(const CutUnit& unit) {
  const bool few = SmallDivisor(max_of(unit.num_splits, 1)).rounded_up(unit.num_rows) * kRowVectors <= Warps;
  const bool narrow = unit.num_splits > kWarpLanes || (few && unit.num_splits <= kInFlight);
  return narrow ? ItemShape{1, kInFlight} : kWide;
}

// What a warp does of a share: splits begin .. end - 1 of an item.
template <class Element>
struct ItemWork {
  int items = 0;  // of the share
  int shift = 0;  // 2^shift warps share an item; if several, there is no more than an item a warp: one round does
  bool present = false;
  int begin = 0, end = 0;
  int position = 0;                  // the lane's first column
  const PartialRow* rows = nullptr;  // of split 0
  const float* scales = nullptr;     // of split 0, for the item's columns
  const __half* values = nullptr;    // the lane's, of split 0
  RowPlace<Element> place;
};

// Of the share's items from `done` on.
template <class Element, int Warps>
__device__ __forceinline__ ItemWork<Element> find_item_work(const MergeParams& params, const CutUnit& unit,
                                                            ItemShape shape, int share, int done, int warp) {
  const int shift_per_row = shape.vectors == 1 ? 2 : 1, items_of_unit = unit.num_rows << shift_per_row;
  static_assert(kRowVectors == 4);
  ItemWork<Element> work;
  if (share >= items_of_unit) return work;
  work.items = SmallDivisor(unit.num_splits).rounded_up(items_of_unit - share);
  while (work.items << (work.shift + 1) <= Warps && shape.in_flight << work.shift < unit.num_splits) ++work.shift;
  const int i = done + (warp >> work.shift), item = share + i * unit.num_splits, row = item >> shift_per_row;
  work.present = i < work.items;
  if (!work.present) return work;
  const int warps_per_item = 1 << work.shift, splits = (unit.num_splits + warps_per_item - 1) >> work.shift;
  work.begin = (warp & (warps_per_item - 1)) * splits;
  work.end = min_of(work.begin + splits, unit.num_splits);
  const int vector = (item - (row << shift_per_row)) * shape.vectors;
  work.position = vector * kVectorColumns + static_cast<int>(threadIdx.x) % kWarpLanes * 4;
  const std::int64_t partial =
      unit.first_slot * static_cast<std::int64_t>(params.work.rows_per_unit) + unit.row_in_unit + row;
  work.rows = ptx::made_here(params.partials.rows + partial);
  work.scales = ptx::made_here(params.partials.rows[partial].scale + vector);
  work.values = ptx::made_here(reinterpret_cast<const __half*>(params.partials.values_of(partial)) + work.position);
  work.place = place_of_row<Element>(params, unit, row);
  return work;
}

// The warp's sum over the splits that it has. `stride`: rows from split to split.
template <int kInFlight, int kVectors, class Element>
__device__ __forceinline__ MergedLse sum_splits(int num_splits, int stride, const ItemWork<Element>& work,
                                                float4 (&sum)[kVectors]) {
  constexpr int kRowFloats = sizeof(PartialRow) / sizeof(float);
  const auto lse_of = [&](int split) { return __ldcg(&work.rows[static_cast<std::int64_t>(split) * stride].lse); };
  const auto scale_of = [&](int split, int v) {
    return __ldcg(work.scales + static_cast<std::int64_t>(split) * stride * kRowFloats + v);
  };
  const auto load = [&](int begin_of_round, int i, int v) {
    return load4(work.values + static_cast<std::int64_t>(begin_of_round) * stride * kLatentDim +
                 i * stride * kLatentDim + v * kVectorColumns);
  };
  return warp_merge<kInFlight>(num_splits, work.begin, work.end, lse_of, scale_of, load, sum);
}

template <class Element, tile::ColumnOrder Order, int kInFlight, int kVectors, int Warps>
__device__ __forceinline__ void merge_item(const Mergers<Warps>& mergers, int num_splits, int stride,
                                           const ItemWork<Element>& work) {
  const int warps_per_item = 1 << work.shift;
  float4 sum[kVectors] = {};
  MergedLse merged;
  if (work.present) merged = sum_splits<kInFlight>(num_splits, stride, work, sum);
  if (work.shift > 0) add_warps(mergers, warps_per_item, sum);
  if (work.present && (mergers.warp() & (warps_per_item - 1)) == 0) {
    store_item<Element, Order>(work.place, work.position, sum, merged.lse());
  }
}

// kInFlight: of narrow items. `work`: of the part's own share, if `prepared`.
template <class Element, tile::ColumnOrder Order, int kInFlight, int Warps>
__device__ __forceinline__ void merge_many_splits(const Mergers<Warps>& mergers, const MergeParams& params,
                                                  const CutUnit& unit, ItemShape shape, Shares shares, bool prepared,
                                                  ItemWork<Element> work) {
  const int stride = params.work.rows_per_unit;
#pragma unroll 1
  for (int share = shares.first; share <= shares.last; ++share) {
#pragma unroll 1
    for (int done = 0;; done += Warps >> work.shift) {
      if (!prepared || share != unit.split) {
        work = find_item_work<Element, Warps>(params, unit, shape, share, done, mergers.warp());
      }
      prepared = false;
      if (done >= work.items) break;
      if (shape.vectors == 1) {
        merge_item<Element, Order, kInFlight, 1>(mergers, unit.num_splits, stride, work);
      } else {
        merge_item<Element, Order, kWide.in_flight, kWide.vectors>(mergers, unit.num_splits, stride, work);
      }
    }
  }
}

}  // namespace flash_mla::cuda
