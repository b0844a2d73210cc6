// The merge of units in few splits, as most are: a warp has whole rows, whose values of all splits come to shared
// memory in one round trip, of both cut units of its part if there is room. A warp is alone with its rows, so its time
// is that of what waits for one another: no branches between sums, and addresses are made while copies are under way.
// Units in many splits: merge_many_splits.h.
#pragma once

#include "core/int_math.h"
#include "cuda/combine/gate.h"
#include "cuda/combine/merged_row.h"
#include "cuda/combine/small_divisor.h"
#include "cuda/ptx/bulk_copy.h"
#include "cuda/ptx/fence.h"

namespace flash_mla::cuda {

inline constexpr int kUnitLanes = kWarpLanes / 2;  // for each unit
inline constexpr int kRowBytes = kLatentDim * 2;
inline constexpr int kUnrolled = 4;  // splits that are added up at a time

// Of one warp. `rows` is at least kUnitLanes.
struct WarpStaging {
  unsigned char* memory;
  int rows;  // that have room
  ptx::Barrier& landed;
};

// Few: a share has a row for more than half of the warps.
template <int Rows, int Warps>
__device__ __forceinline__ bool has_few_splits(const CutUnit& unit) {
  constexpr int kFew = 2 * Rows / Warps - 1;
  static_assert(ceil_div(Rows, kFew) > Warps / 2 && ceil_div(Rows, kFew + 1) <= Warps / 2 && kFew <= kUnitLanes);
  return unit.num_rows > 0 && unit.num_splits <= kFew;
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
  const SmallDivisor splits(unit.num_splits);
  const int rows = ceil_div(splits.rounded_up(max_of(unit.num_rows - share, 0)), Warps);
  const int j = splits.quotient(lane);
  work.num_splits = unit.num_splits;
  work.split = splits.remainder(lane);
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
  RowPlace place;
  if (now >> lane & 1) {
    const CutUnit& unit = units[lane / kUnitLanes];
    const std::int64_t row = (unit.first_slot + work.split) * static_cast<std::int64_t>(params.work.rows_per_unit) +
                             unit.row_in_unit + work.row;
    ptx::fence_async_global();
    ptx::bulk_load(place_of(lane), params.partials.values_of(row), kRowBytes, staging.landed);
    lse = __ldcg(&params.partials.rows[row].lse);
    factor = __ldcg(reinterpret_cast<const float4*>(params.partials.rows[row].scale));
    place = place_of_row(params, unit, work.row);
  }

  const int first_lane = lane - work.split;  // of the lane's row
  // All lanes take part in every exchange, those of either unit.
  const int exchanges =
      max_of(__shfl_sync(kAllLanes, work.num_splits, 0), __shfl_sync(kAllLanes, work.num_splits, kUnitLanes));
  const auto of_split = [&](float value, int split, float otherwise) {
    const float x = __shfl_sync(kAllLanes, value, (first_lane + split) % kWarpLanes);
    return split < work.num_splits ? x : otherwise;
  };
  float max = kNegativeInfinity;
#pragma unroll 4
  for (int i = 0; i < exchanges; ++i) max = fmaxf(max, of_split(lse, i, kNegativeInfinity));
  MergedLse merged{finite_reference(max), 0.0f};
  const float exponential = expf(lse - merged.reference);
#pragma unroll 4
  for (int i = 0; i < exchanges; ++i) merged.sum += of_split(exponential, i, 0.0f);
  const float weight = merged.factor(lse), merged_lse = merged.lse();
  factor =
      weight == 0.0f ? float4{} : float4{factor.x * weight, factor.y * weight, factor.z * weight, factor.w * weight};

  staging.landed.wait(phase & 1);
#pragma unroll 1
  for (unsigned rows = __ballot_sync(kAllLanes, work.split == 0) & now; rows != 0; rows &= rows - 1) {
    const int first = __ffs(rows) - 1, num_splits = __shfl_sync(kAllLanes, work.num_splits, first);
    float4 sum[kRowVectors] = {};
#pragma unroll kUnrolled
    for (int of = first; of < first + num_splits; ++of) {
      const bool wanted = __shfl_sync(kAllLanes, weight, of) != 0.0f;
      const float of_vector[kRowVectors] = {__shfl_sync(kAllLanes, factor.x, of), __shfl_sync(kAllLanes, factor.y, of),
                                            __shfl_sync(kAllLanes, factor.z, of), __shfl_sync(kAllLanes, factor.w, of)};
      const auto* const values = reinterpret_cast<const __half*>(place_of(of)) + 4 * lane;
#pragma unroll
      for (int v = 0; v < kRowVectors; ++v) {
        const Four<__half> o = {*reinterpret_cast<const uint2*>(values + v * kVectorColumns)};
        add_if(wanted, sum[v], of_vector[v], widen(o));
      }
    }
    const RowPlace of_row = {__shfl_sync(kAllLanes, place.out, first), __shfl_sync(kAllLanes, place.lse, first)};
    store_item<Element, Order>(params, of_row, 4 * lane, sum, __shfl_sync(kAllLanes, merged_lse, first));
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
