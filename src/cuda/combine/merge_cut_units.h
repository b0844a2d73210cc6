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

// By the merging warps of a thread block that has Rows rows of a unit; `memory` is theirs. kInFlight:
// merge_many_splits.h.
template <class Element, tile::ColumnOrder Order, int Rows, int kInFlight, int Warps>
__device__ __forceinline__ void merge_cut_units(const MergeParams& params, const CutUnit (&units)[2],
                                                const Shares (&shares)[2], unsigned char* memory, int memory_bytes,
                                                ptx::Barrier (&landed)[Warps], int first_warp, int barrier) {
  const Mergers<Warps> mergers{*reinterpret_cast<typename Mergers<Warps>::Sums*>(memory), first_warp, barrier};
  const int warp = mergers.warp(), rows = memory_bytes / Warps / kRowBytes;
  if (has_few_splits<Rows, Warps>(units[0]) || has_few_splits<Rows, Warps>(units[1])) {
    merge_few_splits<Element, Order, Rows, Warps>(params, units, shares, warp,
                                                  {memory + warp * rows * kRowBytes, rows, landed[warp]});
  }
#pragma unroll 1
  for (int u = 0; u < 2; ++u) {
    if (has_few_splits<Rows, Warps>(units[u])) continue;
#pragma unroll 1
    for (int share = shares[u].first; share <= shares[u].last; ++share) {
      merge_many_splits<Element, Order, kInFlight>(mergers, params, units[u], share);
    }
  }
}

}  // namespace flash_mla::cuda
