// Step 8 of docs/algorithm.md: merges the units that part boundaries cut. An item is what one warp of the group has of
// a row, 128 columns; the n parts that share a unit have items split, split + n, ... of it:
//
//   M = max_i m_i     L = sum_i 2^(m_i - M) l_i     out = sum_i 2^(m_i - M) o_i / L     lse = ln 2 (M + log2 L)
//
// over the splits i in order, with their maxima m_i, sums l_i and accumulators o_i as they are, in f32. A warp has
// eight or sixteen pairs of an item and a split under way at a time, of as many items as that makes; where a unit has
// more splits, several warps share an item. Each warp is alone with its processor: few instructions count more than few
// bytes.
#pragma once

#include "cuda/combine/blank.h"
#include "cuda/sm90/few_rows_decode/epilogue.h"
#include "cuda/sm90/few_rows_decode/roll_keeper.h"

namespace flash_mla::sm90::few_rows {

inline constexpr int kFewPairs = 8, kManyPairs = 16;  // of an item and a split, under way at a time

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

  [[nodiscard]] __device__ __forceinline__ bool is_number() const {
    const float all = (sum.x + sum.y) + (sum.z + sum.w) + total;
    return all == all;
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

// Sums up splits first_split, ... of items first_item, first_item + n, ..., the first of which are there, all at once.
// Instead of a pair that is not there another one is loaded, for a load behind a branch would be waited for at the
// branch's end; it gets no weight. A blank word is a NaN, and so is what comes of one: words are looked at only if a
// sum is no number.
template <int Items, int Splits>
__device__ __forceinline__ void sum_pairs(const UnitView& unit, int first_item, int first_split, int end_split,
                                          MergedSum (&merged)[Items]) {
  until_none_is_blank([&] {
    float2 facts[Items][Splits];
    float4 values[Items][Splits];
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      const int item = first_item + i * unit.num_splits, present = item < unit.items ? item : first_item;
#pragma unroll
      for (int s = 0; s < Splits; ++s) {
        unit.load(present, min_of(first_split + s, end_split - 1), facts[i][s], values[i][s]);
      }
    }
    bool numbers = true, blank = false;
#pragma unroll
    for (int i = 0; i < Items; ++i) {
#pragma unroll
      for (int s = 1; s < Splits; ++s) {
        if (first_split + s >= end_split) facts[i][s] = {kNegativeInfinity, 0.f};
      }
      merged[i] = MergedSum{};
      merged[i].add(facts[i], values[i]);
      numbers = numbers && merged[i].is_number();
    }
    if (numbers) return true;
#pragma unroll
    for (int i = 0; i < Items; ++i) {
#pragma unroll
      for (int s = 0; s < Splits; ++s) blank |= cuda::is_blank(facts[i][s]) || cuda::is_blank(values[i][s]);
    }
    return !blank;
  });
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
  static_assert(Items * Splits == kFewPairs || Items * Splits == kManyPairs);
  const int warp = threadIdx.x / 32;
#pragma unroll 1
  for (int first = share + warp * Items * unit.num_splits; first < unit.items;
       first += kWarps * Items * unit.num_splits) {
    MergedSum merged[Items];
    sum_pairs<Items, Splits>(unit, first, 0, unit.num_splits, merged);
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      const int item = first + i * unit.num_splits;
      if (item < unit.items) store_item<Element>(cut, u, item, merged[i]);
    }
  }
}

// Sums up splits `begin` to before `end` of an item.
__device__ __forceinline__ void add_splits(const UnitView& unit, int item, int begin, int end, MergedSum& merged) {
#pragma unroll 1
  for (int split = begin; split < end; split += kFewPairs) {
    MergedSum some[1];
    sum_pairs<1, kFewPairs>(unit, item, split, end, some);
    merged.add<1>({{some[0].maximum, some[0].total}}, {some[0].sum});
  }
}

__device__ __forceinline__ int items_of_share(const UnitView& unit) {
  return (unit.items + unit.num_splits - 1) / unit.num_splits;
}

// 2^shift warps share an item: so many that all items of a share are in work at once, if that can be.
__device__ __forceinline__ int shift_of_warps(const UnitView& unit) {
  const int items = items_of_share(unit);
  int shift = 1;
  while (1 << shift < kWarps && items << (shift + 1) <= kWarps) ++shift;
  return shift;
}

// A share of a unit in more splits. The first of the warps that share an item adds their sums, in order.
template <class Element, int Rows>
__device__ __forceinline__ void merge_shared_items(RolledUnits<Rows>& cut, int u, const UnitView& unit, int share) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int shift = shift_of_warps(unit), warps_per_item = 1 << shift, of_item = warp & (warps_per_item - 1);
  const int splits = (unit.num_splits + warps_per_item - 1) >> shift;
  const int begin = of_item * splits, end = min_of(begin + splits, unit.num_splits);
#pragma unroll 1
  for (int first = share; first < unit.items; first += (kWarps >> shift) * unit.num_splits) {
    const int item = first + (warp >> shift) * unit.num_splits;
    MergedSum merged;
    if (item < unit.items) add_splits(unit, item, begin, end, merged);
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

// A share of a unit. To take twice as many pairs at a time costs less than a second round of items does.
template <class Element, int Rows>
__device__ __forceinline__ void merge_share(RolledUnits<Rows>& cut, int u, const UnitView& unit, int share) {
  const int n = unit.num_splits, items = items_of_share(unit);
  if (n <= 2) {
    merge_whole_items<Element, 4, 2>(cut, u, unit, share);
  } else if (n <= 4) {
    merge_whole_items<Element, 2, 4>(cut, u, unit, share);
  } else if (n <= 8 && items <= kWarps) {
    merge_whole_items<Element, 1, 8>(cut, u, unit, share);
  } else if (n <= 8) {
    merge_whole_items<Element, 2, 8>(cut, u, unit, share);
  } else if (n <= 16 && 2 * items > kWarps) {
    merge_whole_items<Element, 1, 16>(cut, u, unit, share);
  } else {
    merge_shared_items<Element>(cut, u, unit, share);
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
      merge_share<Element>(cut, u, unit, share);
    }
  }
}

}  // namespace flash_mla::sm90::few_rows
