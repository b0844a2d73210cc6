// Steps 7 and 8 of docs/algorithm.md for units cut by part boundaries, in plans of few units: then a unit is in many
// parts, and a step's time is what they wait for each other. Partials say by themselves whether they are there
// (combine/blank.h), and are stored as threads hold them, with the rows' maxima and sums; merge.h merges them.
#pragma once

#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/global_atomic.h"
#include "cuda/ptx/opaque.h"
#include "cuda/sm90/few_rows_decode/merge.h"

namespace flash_mla::sm90::few_rows {

struct SmallStep {
  // Where the thread's first row goes, if the tile's results are a partial.
  struct PartialPlace {
    float* values = nullptr;
    float2* facts = nullptr;
  };

  template <int Rows>
  class Gatekeeper : public RollKeeper<Rows> {
   public:
    __device__ __forceinline__ void find_units(SharedMemory<Rows>& smem, const DecodeParams& params) {
      RollKeeper<Rows>::find_units(smem.rolled, params);
    }
    template <class Element>
    __device__ __forceinline__ void run(SharedMemory<Rows>& smem, const DecodeParams& params) {
      this->template find_places<Element>(smem.rolled, params);
      ptx::wait_for_prerequisites();
      this->open(smem.rolled, params);
    }
    // By all warps.
    template <class Element>
    __device__ __forceinline__ void merge(SharedMemory<Rows>& smem, const DecodeParams& params) {
      if (threadIdx.x / 32 == kGatekeeperWarp) this->call(smem.rolled);
      merge_units<Element>(smem.rolled, params);
    }
  };

  template <int Rows>
  static __device__ void init_barriers(SharedMemory<Rows>& smem) {
    smem.rolled.partials_blank.init(1);
    smem.rolled.partials_written.init(kWarpgroupWarps);
    smem.rolled.roll_called.init(32);
  }

  static __device__ __forceinline__ PartialPlace place_of_partial(const DecodeParams& params, const TileRecord& tile) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const std::int64_t at = partial_row(params, tile, row_of_column(lane, 0));
    return {ptx::made_here(params.partials.items_of(at) + kItemColumns * warp + 4 * (lane / 4)),
            ptx::made_here(reinterpret_cast<float2*>(params.partials.facts_of(at)) + warp)};
  }

  // An item's 128 columns lie as four parts of eight threads, four neighbouring slices a thread.
  template <int Rows>
  static __device__ __forceinline__ void write_partial(SharedMemory<Rows>& smem, const DecodeParams&,
                                                       const PartialPlace& place, const TileRecord& tile,
                                                       const RowState<Rows>& rows, const Accumulators<Rows>& acc,
                                                       const float (&sum)[kThreadColumns<Rows>]) {
    constexpr int kParts = 4, kPartColumns = kItemColumns / kParts;
    const int lane = threadIdx.x % 32, first_row = row_of_column(lane, 0);
    smem.rolled.partials_blank.wait(0);
#pragma unroll
    for (int c = 0; c < kThreadColumns<Rows>; ++c) {
      const int row = row_of_column(0, c);  // behind the first one
      if (first_row + row >= tile.num_rows) continue;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const int i = 4 * (c / 2) + c % 2 + part / 2 * 2, slice = part % 2 * 4;
        ptx::store_relaxed(place.values + row * kLatentDim + part * kPartColumns,
                           float4{acc.o[slice][i], acc.o[slice + 1][i], acc.o[slice + 2][i], acc.o[slice + 3][i]});
      }
      if (lane < 4) ptx::store_relaxed(place.facts + row * kRowItems, float2{rows.maximum[c], sum[c]});
    }
  }

  // By each warp of the group.
  template <int Rows>
  static __device__ __forceinline__ void announce_partials(SharedMemory<Rows>& smem) {
    if (threadIdx.x % 32 == 0) smem.rolled.partials_written.arrive();
  }
};

}  // namespace flash_mla::sm90::few_rows
