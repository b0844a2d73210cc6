// Step 8 of docs/algorithm.md: merges the units that part boundaries cut. An item is what one warp of the group has of
// a row, 128 columns; the n parts that share a unit have items split, split + n, ... of it:
//
//   M = max_i m_i     L = sum_i 2^(m_i - M) l_i     out = sum_i 2^(m_i - M) o_i / L     lse = ln 2 (M + log2 L)
//
// over the splits i in order, with their maxima m_i, sums l_i and accumulators o_i as they are, in f32. A warp has some
// eight pairs of an item and a split under way at a time, of as many items as that makes; where a unit has more splits,
// several warps share an item. Each warp is alone with its processor: few instructions count more than few bytes.
#pragma once

#include "cuda/combine/blank.h"
#include "cuda/sm90/few_rows_decode/epilogue.h"
#include "cuda/sm90/few_rows_decode/roll_keeper.h"

namespace flash_mla::sm90::few_rows {

inline constexpr int kPairs = 8;  // of an item and a split, under way at a time

// Where partials are late, looking for them keeps memory busy.
inline constexpr int kHastyTries = 8;
inline constexpr unsigned kPauseNanoseconds = 100;

// A sum over some splits: of the row, and of the lane's four columns.
struct MergedSum {
  float maximum = kNegativeInfinity, total = 0.f;
  float4 sum = {};

  // Splits that come after those that are in. A weight of 0 takes nothing, whatever the values are.
  template <int Splits>
  __device__ __forceinline__ void add(const float2 (&facts)[Splits], const float4 (&values)[Splits]) {
    float raised = maximum;
#pragma unroll
    for (const float2& fact : facts) raised = fmaxf(raised, fact.x);
    const float reference = finite_reference(raised), own = ptx::exp2_approx(maximum - reference);
    maximum = raised;
    const float4 before = sum;
    sum = {};
    total *= own;
    cuda::add_if(own != 0.f, sum, own, before);
#pragma unroll
    for (int i = 0; i < Splits; ++i) {
      const float weight = ptx::exp2_approx(facts[i].x - reference);
      total += weight * facts[i].y;
      cuda::add_if(weight != 0.f, sum, weight, values[i]);
    }
  }
};

// One cut unit as the merging warps see it.
struct UnitView {
  const float* values;  // of split 0 and item 0, the lane's four columns
  const float2* facts;
  int split_items;  // from split to split; those of all splits have fewer than 2^31 columns
  int num_splits, items;

  __device__ __forceinline__ void load(int item, int split, float2& fact, float4& value) const {
    const int at = split * split_items + item;
    fact = ptx::load_relaxed(facts + at);
    value = ptx::load_relaxed(reinterpret_cast<const float4*>(values + at * kItemColumns));
  }
};

__device__ __forceinline__ UnitView view_of(const DecodeParams& params, const cuda::CutUnit& unit) {
  const std::int64_t row = unit.first_slot * static_cast<std::int64_t>(params.work.rows_per_unit);
  return {params.partials.items_of(row) + 4 * (threadIdx.x % 32),
          reinterpret_cast<const float2*>(params.partials.facts_of(row)), kRowItems * params.work.rows_per_unit,
          unit.num_splits, kRowItems * unit.num_rows};
}

// Calls try_once() until it says so to all lanes of the warp, which all call.
template <class TryOnce>
__device__ __forceinline__ void until_none_is_blank(TryOnce try_once) {
#pragma unroll 1
  for (int tries = 0; __any_sync(kAllLanes, !try_once()); ++tries) {
    if (tries > kHastyTries) __nanosleep(kPauseNanoseconds);
  }
}

// Loads items first_item, first_item + n, ... and splits first_split, ... of each, the first of which are there, all at
// once. Instead of a pair that is not there another one is loaded, for a load behind a branch would be waited for at
// the branch's end; it gets no weight.
template <int Items, int Splits>
__device__ __forceinline__ void load_pairs(const UnitView& unit, int first_item, int first_split, int end_split,
                                           float2 (&facts)[Items][Splits], float4 (&values)[Items][Splits]) {
  until_none_is_blank([&] {
    bool blank = false;
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      const int item = first_item + i * unit.num_splits, present = item < unit.items ? item : first_item;
#pragma unroll
      for (int s = 0; s < Splits; ++s) {
        unit.load(present, min_of(first_split + s, end_split - 1), facts[i][s], values[i][s]);
      }
    }
#pragma unroll
    for (int i = 0; i < Items; ++i) {
#pragma unroll
      for (int s = 0; s < Splits; ++s) blank |= cuda::is_blank(facts[i][s]) || cuda::is_blank(values[i][s]);
    }
    return !blank;
  });
#pragma unroll
  for (int i = 0; i < Items; ++i) {
#pragma unroll
    for (int s = 1; s < Splits; ++s) {
      if (first_split + s >= end_split) facts[i][s] = {kNegativeInfinity, 0.f};
    }
  }
}

template <class Element, int Rows>
__device__ __forceinline__ void store_item(const RolledUnits<Rows>& cut, int u, int item, const MergedSum& merged) {
  const int row = item / kRowItems, quarter = item % kRowItems, lane = threadIdx.x % 32, part = lane / 8;
  const float factor = inverse(merged.total);
  Element* const out = static_cast<Element*>(cut.out[u][row]) + part % 2 * 4 * tile::kSliceColumns + 16 * quarter +
                       8 * (part / 2) + lane % 8;
  out[0] = static_cast<Element>(merged.sum.x * factor);
  out[tile::kSliceColumns] = static_cast<Element>(merged.sum.y * factor);
  out[2 * tile::kSliceColumns] = static_cast<Element>(merged.sum.z * factor);
  out[3 * tile::kSliceColumns] = static_cast<Element>(merged.sum.w * factor);
  if (quarter == 0 && lane == 0 && cut.lse[u][row] != nullptr) {
    *cut.lse[u][row] = lse_for_api(lse_of(merged.maximum, merged.total));
  }
}

// A share of a unit in at most Splits splits: a warp merges Items items at a time.
template <class Element, int Items, int Splits, int Rows>
__device__ __forceinline__ void merge_whole_items(const RolledUnits<Rows>& cut, int u, const UnitView& unit,
                                                  int share) {
  static_assert(Items * Splits == kPairs);
  const int warp = threadIdx.x / 32;
#pragma unroll 1
  for (int first = share + warp * Items * unit.num_splits; first < unit.items;
       first += kWarps * Items * unit.num_splits) {
    float2 facts[Items][Splits];
    float4 values[Items][Splits];
    load_pairs(unit, first, 0, unit.num_splits, facts, values);
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      const int item = first + i * unit.num_splits;
      if (item >= unit.items) break;
      MergedSum merged;
      merged.add(facts[i], values[i]);
      store_item<Element>(cut, u, item, merged);
    }
  }
}

// A share of a unit in more splits: 2^shift warps share an item, whose sums the first of them adds in order.
template <class Element, int Rows>
__device__ __forceinline__ void merge_shared_items(RolledUnits<Rows>& cut, int u, const UnitView& unit, int share) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int shift = 1;
  while (1 << shift < kWarps && kPairs << shift < unit.num_splits) ++shift;
  const int warps_per_item = 1 << shift, of_item = warp & (warps_per_item - 1);
  const int splits = (unit.num_splits + warps_per_item - 1) >> shift;
  const int begin = of_item * splits, end = min_of(begin + splits, unit.num_splits);
#pragma unroll 1
  for (int first = share; first < unit.items; first += (kWarps >> shift) * unit.num_splits) {
    const int item = first + (warp >> shift) * unit.num_splits;
    MergedSum merged;
#pragma unroll 1
    for (int split = begin; item < unit.items && split < end; split += kPairs) {
      float2 facts[1][kPairs];
      float4 values[1][kPairs];
      load_pairs(unit, item, split, end, facts, values);
      merged.add(facts[0], values[0]);
    }
    cut.sums[warp][lane] = merged.sum;
    if (lane == 0) cut.facts[warp] = {merged.maximum, merged.total};
    ptx::sync_threads(kMergeBarrier, kThreads);
    if (of_item == 0 && item < unit.items) {
#pragma unroll 1
      for (int other = warp + 1; other < warp + warps_per_item; ++other) {
        merged.add<1>({cut.facts[other]}, {cut.sums[other][lane]});
      }
      store_item<Element>(cut, u, item, merged);
    }
    ptx::sync_threads(kMergeBarrier, kThreads);  // the sums have been read
  }
}

// By all warps of the thread block, once they have nothing else to do.
template <class Element, int Rows>
__device__ __forceinline__ void merge_units(RolledUnits<Rows>& cut, const DecodeParams& params) {
  if (cut.unit[0].num_rows <= 0 && cut.unit[1].num_rows <= 0) return;
  cut.partials_written.wait(0);  // about when the others' are
  cut.roll_called.wait(0);
#pragma unroll 1
  for (int u = 0; u < 2; ++u) {
    if (cut.unit[u].num_rows <= 0) continue;
    const UnitView unit = view_of(params, cut.unit[u]);
#pragma unroll 1
    for (int share = cut.shares[u].first; share <= cut.shares[u].last; ++share) {
      if (unit.num_splits <= 2) {
        merge_whole_items<Element, 4, 2>(cut, u, unit, share);
      } else if (unit.num_splits <= 4) {
        merge_whole_items<Element, 2, 4>(cut, u, unit, share);
      } else if (unit.num_splits <= kPairs) {
        merge_whole_items<Element, 1, kPairs>(cut, u, unit, share);
      } else {
        merge_shared_items<Element>(cut, u, unit, share);
      }
    }
  }
}

}  // namespace flash_mla::sm90::few_rows
