// The merge of units in few splits, as most are: a warp has whole rows, whose values of all splits come to shared
// memory in one round trip, of both cut units of its part if there is room. Code is short, for what runs once arrives
// from memory as late as data. Units in many splits: merge_many_splits.h.
#pragma once

#include "core/int_math.h"
#include "cuda/combine/gate.h"
#include "cuda/combine/merged_row.h"
#include "cuda/ptx/bulk_copy.h"
#include "cuda/ptx/fence.h"

namespace flash_mla::cuda {

inline constexpr int kUnitLanes = kWarpLanes / 2;  // for each unit
inline constexpr int kRowBytes = kLatentDim * 2;

// Of one warp. `rows` is at least kUnitLanes.
struct WarpStaging {
  unsigned char* memory;
  int rows;  // that have room
  ptx::Barrier& landed;
};

// Few: a share has a row for each warp.
template <int Rows, int Warps>
__device__ __forceinline__ bool has_few_splits(const CutUnit& unit) {
  static_assert(Rows / Warps >= 2 && Rows / Warps <= kUnitLanes / 2);
  return unit.num_rows > 0 && unit.num_splits <= Rows / Warps;
}

// What a lane does: the lanes of each unit work for (row j, split i) of the warp's rows. It asks for the values and
// makes the factor.
struct LaneWork {
  int num_splits = 0, split = 0;
  int row = 0;  // of the unit
  bool present = false;
};

// A share has rows `share`, share + n, ...; a warp has neighbouring ones of them, at most kUnitLanes / n.
template <int Rows, int Warps>
__device__ __forceinline__ LaneWork find_lane_work(const CutUnit& unit, Shares shares, int round, int warp) {
  LaneWork work;
  const int share = shares.first + round, lane = static_cast<int>(threadIdx.x) % kUnitLanes;
  if (!has_few_splits<Rows, Warps>(unit) || share > shares.last) return work;
  work.num_splits = unit.num_splits;
  const int rows = ceil_div(ceil_div(max_of(unit.num_rows - share, 0), unit.num_splits), Warps);
  const int j = lane / unit.num_splits;
  work.split = lane % unit.num_splits;
  work.row = share + unit.num_splits * (warp * rows + j);
  work.present = j < rows && work.row < unit.num_rows;
  return work;
}

// The rows of the lanes in `now`; `phase` counts the calls.
template <class Element, tile::ColumnOrder Order>
__device__ __forceinline__ void merge_rows(const MergeParams& params, const CutUnit (&units)[2], const LaneWork& work,
                                           unsigned now, std::uint32_t phase, const WarpStaging& staging) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const auto place_of = [&](int of_lane) { return staging.memory + __popc(now & ((1u << of_lane) - 1)) * kRowBytes; };
  if (lane == 0) staging.landed.arrive_expecting(__popc(now) * kRowBytes);
  __syncwarp();
  float lse = kNegativeInfinity;
  float4 factor = {};
  if (now >> lane & 1) {
    const CutUnit& unit = units[lane / kUnitLanes];
    const std::int64_t row = (unit.first_slot + work.split) * static_cast<std::int64_t>(params.work.rows_per_unit) +
                             unit.row_in_unit + work.row;
    ptx::fence_async_global();
    ptx::bulk_load(place_of(lane), params.partials.values_of(row), kRowBytes, staging.landed);
    lse = __ldcg(&params.partials.rows[row].lse);
    factor = __ldcg(reinterpret_cast<const float4*>(params.partials.rows[row].scale));
  }

  const int first_lane = lane - work.split;  // of the lane's row
  const auto lse_of = [&](int split) { return __shfl_sync(kAllLanes, lse, (first_lane + split) % kWarpLanes); };
  // All lanes take part in every exchange, those of either unit.
  const int exchanges =
      max_of(__shfl_sync(kAllLanes, work.num_splits, 0), __shfl_sync(kAllLanes, work.num_splits, kUnitLanes));
  float max = kNegativeInfinity;
#pragma unroll 1
  for (int i = 0; i < exchanges; ++i) {
    const float x = lse_of(i);
    if (i < work.num_splits) max = fmaxf(max, x);
  }
  MergedLse merged{finite_reference(max), 0.0f};
#pragma unroll 1
  for (int i = 0; i < exchanges; ++i) {
    const float x = lse_of(i);
    if (i < work.num_splits) merged.sum += expf(x - merged.reference);
  }
  const float weight = merged.factor(lse), merged_lse = merged.lse();
  factor = {factor.x * weight, factor.y * weight, factor.z * weight, factor.w * weight};

  staging.landed.wait(phase & 1);
#pragma unroll 1
  for (unsigned rows = __ballot_sync(kAllLanes, work.split == 0) & now; rows != 0; rows &= rows - 1) {
    const int first = __ffs(rows) - 1, num_splits = __shfl_sync(kAllLanes, work.num_splits, first);
    float4 sum[kRowVectors] = {};
#pragma unroll 1
    for (int of = first; of < first + num_splits; ++of) {
      if (__shfl_sync(kAllLanes, weight, of) == 0.0f) continue;  // it may hold anything
      const float of_vector[kRowVectors] = {__shfl_sync(kAllLanes, factor.x, of), __shfl_sync(kAllLanes, factor.y, of),
                                            __shfl_sync(kAllLanes, factor.z, of), __shfl_sync(kAllLanes, factor.w, of)};
      const auto* const values = reinterpret_cast<const __half*>(place_of(of)) + 4 * lane;
#pragma unroll
      for (int v = 0; v < kRowVectors; ++v) {
        const Four<__half> o = {*reinterpret_cast<const uint2*>(values + v * kVectorColumns)};
        add(sum[v], of_vector[v], widen(o));
      }
    }
    store_item<Element, Order>(params, units[first / kUnitLanes], __shfl_sync(kAllLanes, work.row, first), 4 * lane,
                               sum, __shfl_sync(kAllLanes, merged_lse, first));
  }
}

// By warp `warp` of those that merge.
template <class Element, tile::ColumnOrder Order, int Rows, int Warps>
__device__ __forceinline__ void merge_few_splits(const MergeParams& params, const CutUnit (&units)[2],
                                                 const Shares (&shares)[2], int warp, const WarpStaging& staging) {
  const int u = static_cast<int>(threadIdx.x) % kWarpLanes / kUnitLanes;
  constexpr unsigned kLanesOfFirstUnit = (1u << kUnitLanes) - 1;
  std::uint32_t phase = 0;
  const int rounds = max_of(shares[0].last - shares[0].first, shares[1].last - shares[1].first) + 1;
#pragma unroll 1
  for (int round = 0; round < rounds; ++round) {
    const LaneWork work = find_lane_work<Rows, Warps>(units[u], shares[u], round, warp);
    unsigned present = __ballot_sync(kAllLanes, work.present);
#pragma unroll 1
    while (present != 0) {
      const unsigned first_unit = present & kLanesOfFirstUnit;
      const unsigned now = first_unit == 0 || __popc(present) <= staging.rows ? present : first_unit;
      merge_rows<Element, Order>(params, units, work, now, phase++, staging);
      present &= ~now;
      __syncwarp();  // the shared memory has been read
    }
  }
}

}  // namespace flash_mla::cuda
