// The merge of units in few splits, as most are: a warp has whole rows, whose values of all splits come to shared
// memory in one round trip, of both cut units of its part if there is room. A warp is alone with its rows, so its time
// is that of what waits for one another: no branches between sums, and addresses are made before the shares are known.
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

// What the lanes of a warp tell one another of their partials.
struct LaneValues {
  float4 factor[kWarpLanes];  // of each 128 columns
  float lse[kWarpLanes], exponential[kWarpLanes];
};

static_assert(sizeof(LaneValues) <= kRowBytes);

// Of one warp. `rows` is at least kUnitLanes.
struct WarpStaging {
  unsigned char* memory;
  int rows;  // that have room
  LaneValues& lanes;
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
template <class Element>
struct LaneWork {
  int num_splits = 0, split = 0;
  bool present = false;
  const std::uint16_t* values = nullptr;  // of the partial
  const PartialRow* partial = nullptr;
  RowPlace<Element> place;
};

// A share has rows `share`, share + n, ...; a warp has neighbouring ones of them, at most kUnitLanes / n.
template <class Element, int Rows, int Warps>
__device__ __forceinline__ LaneWork<Element> find_lane_work(const MergeParams& params, const CutUnit& unit, int share,
                                                            int warp) {
  LaneWork<Element> work;
  if (!has_few_splits<Rows, Warps>(unit)) return work;
  const int lane = static_cast<int>(threadIdx.x) % kUnitLanes;
  const SmallDivisor splits(unit.num_splits);
  const int rows = ceil_div(splits.rounded_up(max_of(unit.num_rows - share, 0)), Warps);
  const int j = splits.quotient(lane), row = share + unit.num_splits * (warp * rows + j);  // of the unit
  work.num_splits = unit.num_splits;
  work.split = splits.remainder(lane);
  work.present = j < rows && row < unit.num_rows;
  if (!work.present) return work;
  const std::int64_t partial =
      (unit.first_slot + work.split) * static_cast<std::int64_t>(params.work.rows_per_unit) + unit.row_in_unit + row;
  work.values = ptx::made_here(params.partials.values_of(partial));
  work.partial = ptx::made_here(params.partials.rows + partial);
  work.place = place_of_row<Element>(params, unit, row);
  return work;
}

template <class T>
__device__ __forceinline__ T* shuffle_address(T* address, int lane) {
  return reinterpret_cast<T*>(__shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(address), lane));
}

// The rows of the lanes in `now`; `phase` counts the calls.
template <class Element, tile::ColumnOrder Order>
__device__ __forceinline__ void merge_rows(const LaneWork<Element>& work, unsigned now, std::uint32_t phase,
                                           const WarpStaging& staging) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const auto place_of = [&](int of_lane) { return staging.memory + __popc(now & ((1u << of_lane) - 1)) * kRowBytes; };
  if (lane == 0) staging.landed.arrive_expecting(__popc(now) * kRowBytes);
  __syncwarp();
  float lse = kNegativeInfinity;
  float4 factor = {};
  if (now >> lane & 1) {
    ptx::fence_async_global();
    lse = __ldcg(&work.partial->lse);
    factor = __ldcg(reinterpret_cast<const float4*>(work.partial->scale));
    ptx::bulk_load(place_of(lane), work.values, kRowBytes, staging.landed);
  }

  LaneValues& lanes = staging.lanes;
  const auto of_split = [&](const float(&values)[kWarpLanes], int split) {  // of the lane's row
    return values[(lane - work.split + split) % kWarpLanes];
  };
  lanes.lse[lane] = lse;
  __syncwarp();
  float max = kNegativeInfinity;
#pragma unroll kUnrolled
  for (int i = 0; i < work.num_splits; ++i) max = fmaxf(max, of_split(lanes.lse, i));
  MergedLse merged{finite_reference(max), 0.0f};
  const float exponential = expf(lse - merged.reference);
  lanes.exponential[lane] = exponential;
  __syncwarp();
#pragma unroll kUnrolled
  for (int i = 0; i < work.num_splits; ++i) merged.sum += of_split(lanes.exponential, i);
  const float weight = merged.factor(lse, exponential), merged_lse = merged.lse();
  factor =
      weight == 0.0f ? float4{} : float4{factor.x * weight, factor.y * weight, factor.z * weight, factor.w * weight};

  lanes.factor[lane] = factor;
  const unsigned wanted = __ballot_sync(kAllLanes, weight != 0.0f);
  __syncwarp();
  staging.landed.wait(phase & 1);
#pragma unroll 1
  for (unsigned rows = __ballot_sync(kAllLanes, work.split == 0) & now; rows != 0; rows &= rows - 1) {
    const int first = __ffs(rows) - 1, num_splits = __shfl_sync(kAllLanes, work.num_splits, first);
    const unsigned char* const values = place_of(first) + lane * sizeof(uint2);
    float4 sum[kRowVectors] = {};
#pragma unroll kUnrolled
    for (int split = 0; split < num_splits; ++split) {
      // What has no weight may hold anything; its factor is 0. Without a branch, so that no sum waits for another.
      const unsigned kept = (wanted >> (first + split) & 1) != 0 ? ~0u : 0u;
      const float4 of_vector = lanes.factor[first + split];
      const float factors[kRowVectors] = {of_vector.x, of_vector.y, of_vector.z, of_vector.w};
#pragma unroll
      for (int v = 0; v < kRowVectors; ++v) {
        uint2 o = *reinterpret_cast<const uint2*>(values + split * kRowBytes + v * kVectorColumns * sizeof(__half));
        o = {o.x & kept, o.y & kept};
        add(sum[v], factors[v], widen(Four<__half>{o}));
      }
    }
    const RowPlace<Element> of_row = {shuffle_address(work.place.out, first), shuffle_address(work.place.lse, first)};
    store_item<Element, Order>(of_row, 4 * lane, sum, __shfl_sync(kAllLanes, merged_lse, first));
  }
}

// By warp `warp` of those that merge. `work` is that of the part's own share, `own_split`, of the lane's unit.
template <class Element, tile::ColumnOrder Order, int Rows, int Warps>
__device__ __forceinline__ void merge_few_splits(const MergeParams& params, const CutUnit (&units)[2],
                                                 const Shares (&shares)[2], LaneWork<Element> work, int own_split,
                                                 int warp, const WarpStaging& staging) {
  const int u = static_cast<int>(threadIdx.x) % kWarpLanes / kUnitLanes;
  constexpr unsigned kLanesOfFirstUnit = (1u << kUnitLanes) - 1;
  std::uint32_t phase = 0;
  const Shares first = shares[0], second = shares[1], own = u == 0 ? first : second;
  const int rounds = max_of(first.last - first.first, second.last - second.first) + 1;
#pragma unroll 1
  for (int round = 0; round < rounds; ++round) {
    const int share = own.first + round;
    if (round > 0 || share != own_split) {
      work = find_lane_work<Element, Rows, Warps>(params, units[u], share, warp);
    }
    unsigned present = __ballot_sync(kAllLanes, work.present && share <= own.last);
#pragma unroll 1
    while (present != 0) {
      const unsigned first_unit = present & kLanesOfFirstUnit;
      const unsigned now = first_unit == 0 || __popc(present) <= staging.rows ? present : first_unit;
      merge_rows<Element, Order>(work, now, phase++, staging);
      present &= ~now;
      __syncwarp();  // the shared memory has been read
    }
  }
}

}  // namespace flash_mla::cuda
