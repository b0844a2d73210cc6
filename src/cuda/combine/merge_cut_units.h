// Step 8 of docs/algorithm.md: merges the units that part boundaries cut, each row over the unit's splits i in order:
//
//   lse = ln sum_i exp(lse_i)      out = sum_i exp(lse_i - lse) o_i
//
// The work is dealt as the partials were: the n parts that share a unit have a share of its rows each, so whatever n
// is, each part reads as much as it wrote, and no list of units is needed. A part has at most two cut units: the one it
// found begun and the one it left unfinished. The bits depend on the schedule alone, not on who merges a share.
#pragma once

#include "cuda/combine/gate.h"
#include "cuda/combine/merge_few_splits.h"
#include "cuda/combine/merge_many_splits.h"

namespace flash_mla::cuda {

// By the merging warps of a thread block that has Rows rows of a unit. `memory` is theirs, and `shares` may be read,
// after await_shares(). Mostly a part has its own share of a unit, so all addresses are made before that. kInFlight:
// merge_many_splits.h.
template <class Element, tile::ColumnOrder Order, int Rows, int kInFlight, int Warps, class AwaitShares>
__device__ __forceinline__ void merge_cut_units(const MergeParams& params, const CutUnit (&units)[2],
                                                const Shares (&shares)[2], AwaitShares await_shares,
                                                unsigned char* memory, int memory_bytes, ptx::Barrier (&landed)[Warps],
                                                int first_warp, int barrier) {
  const Mergers<Warps> mergers{*reinterpret_cast<typename Mergers<Warps>::Sums*>(memory), first_warp, barrier};
  const int warp = mergers.warp(), rows = memory_bytes / Warps / kRowBytes - 1;  // a warp's, beside its LaneValues
  unsigned char* const own_memory = memory + warp * (rows + 1) * kRowBytes;
  const auto has_few = [&](int u) { return has_few_splits<Rows, Warps>(units[u]); };
  const auto has_many = [&](int u) { return units[u].num_rows > 0 && !has_few(u); };
  const int own = static_cast<int>(threadIdx.x) % kWarpLanes / kUnitLanes;
  const bool few = has_few(0) || has_few(1), both_many = has_many(0) && has_many(1);
  const auto lane_work = find_lane_work<Element, Rows, Warps>(params, units[own], units[own].split, warp);
  const int own_split = units[own].split;
  int u = has_many(0) ? 0 : 1;  // the unit in many splits, the first if both are
  const bool many = has_many(u);
  CutUnit unit = units[u];
  ItemShape shape = item_shape<kInFlight, Warps>(unit);
  ItemWork<Element> item_work;
  if (many) item_work = find_item_work<Element, Warps>(params, unit, shape, unit.split, 0, warp);

  await_shares();
  __syncwarp();
  if (few) {
    auto& lanes = *reinterpret_cast<LaneValues*>(own_memory + rows * kRowBytes);
    merge_few_splits<Element, Order, Rows, Warps>(params, units, shares, lane_work, own_split, warp,
                                                  {own_memory, rows, lanes, landed[warp]});
  }
  if (!many) return;
#pragma unroll 1
  for (bool prepared = true;; prepared = false) {
    merge_many_splits<Element, Order, kInFlight>(mergers, params, unit, shape, shares[u], prepared, item_work);
    if (!both_many || u == 1) return;
    unit = units[u = 1];
    shape = item_shape<kInFlight, Warps>(unit);
  }
}

}  // namespace flash_mla::cuda
