// Steps 7 and 8 of docs/algorithm.md for units cut by part boundaries, in plans of many units: then a unit is in few
// parts, and what counts is how little memory has to move. A partial is stored in f16 with scales (combine/partials.h),
// its columns in the order in which threads hold them (tile/column_order.h), 16 bytes at a time: then a warp has 128
// neighbouring positions of a row. Parts meet at gates (combine/gate.h).
#pragma once

#include "cuda/combine/merge_cut_units.h"
#include "cuda/ptx/dependent_launch.h"
#include "cuda/sm90/few_rows_decode/epilogue.h"
#include "cuda/tile/column_order.h"

namespace flash_mla::sm90::few_rows {

// The largest finite |o| of each of the thread's rows among the columns that the warp has.
template <int Rows>
__device__ __forceinline__ void find_largest(const Accumulators<Rows>& acc, float (&largest)[kThreadColumns<Rows>]) {
  find_largest_finite(largest, [&](auto raise) {
#pragma unroll
    for (const auto& slice : acc.o) {
#pragma unroll
      for (int i = 0; i < kTileRegisters<Rows>; ++i) raise(column_of(i), slice[i]);
    }
  });
#pragma unroll
  for (int distance = 4; distance < 32; distance *= 2) {
#pragma unroll
    for (float& x : largest) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
}

struct LargeStep {
  struct PartialPlace {};

  template <int Rows>
  class Gatekeeper : public sm90::Gatekeeper {
   public:
    __device__ __forceinline__ void find_units(SharedMemory<Rows>& smem, const DecodeParams& params) {
      sm90::Gatekeeper::find_units(smem.cut, params, Rows);
    }
    template <class Element>
    __device__ __forceinline__ void run(SharedMemory<Rows>&, const DecodeParams& params) {
      ptx::wait_for_prerequisites();
      open(params);
    }
    // By all warps. Blocks of tokens have all been used by then: their place serves the merge.
    template <class Element>
    __device__ __forceinline__ void merge(SharedMemory<Rows>& smem, const DecodeParams& params) {
      const auto await_shares = [&] {
        if (threadIdx.x / 32 == kGatekeeperWarp) this->template answer<Partials>(smem.cut);
        smem.cut.gates_answered.wait(0);
      };
      cuda::merge_cut_units<Element, tile::ColumnOrder::transposed, Rows, 9>(
          params, smem.cut.unit, smem.cut.shares, await_shares, smem.kv.k[0][0].bytes, sizeof smem.kv.k,
          smem.cut.partials_landed, 0, kMergeBarrier);
    }
  };

  template <int Rows>
  static __device__ void init_barriers(SharedMemory<Rows>& smem) {
    init_cut_units(smem.cut);
  }

  static __device__ __forceinline__ PartialPlace place_of_partial(const DecodeParams&, const TileRecord&) { return {}; }

  template <int Rows>
  static __device__ __forceinline__ void write_partial(SharedMemory<Rows>&, const DecodeParams& params,
                                                       const PartialPlace&, const TileRecord& tile,
                                                       const RowState<Rows>& rows, const Accumulators<Rows>& acc,
                                                       const float (&sum)[kThreadColumns<Rows>]) {
    for_own_row(rows, sum, [&](int row, float maximum, float total) {
      if (row < tile.num_rows) params.partials.rows[partial_row(params, tile, row)].lse = lse_of(maximum, total);
    });
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float largest[kThreadColumns<Rows>];
    find_largest(acc, largest);
#pragma unroll
    for (int c = 0; c < kThreadColumns<Rows>; ++c) {
      const cuda::PowerOfTwo power = cuda::scale_to_f16(largest[c]);
      uint4 values[2];  // columns 16 w + l / 4 and + 8 of each slice
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = 4 * (c / 2) + c % 2 + 2 * half;
        std::uint32_t pairs[kLatentSlices / 2];
#pragma unroll
        for (int slice = 0; slice < kLatentSlices; slice += 2) {
          pairs[slice / 2] = pack<__half>(acc.o[slice][i] * power.factor, acc.o[slice + 1][i] * power.factor);
        }
        values[half] = {pairs[0], pairs[1], pairs[2], pairs[3]};
      }
      const float scale = power.inverse * inverse(sum[c]);
      const int row = row_of_column(lane, c);
      if (row >= tile.num_rows) continue;
      const std::int64_t at = partial_row(params, tile, row);
      if (lane < 4) params.partials.rows[at].scale[warp] = scale;
      std::uint16_t* const to = params.partials.values_of(at) + tile::transposed_position(0, 16 * warp + lane / 4);
      *reinterpret_cast<uint4*>(to) = values[0];
      *reinterpret_cast<uint4*>(to + tile::transposed_position(0, 8)) = values[1];
    }
  }

  // By each warp of the group.
  template <int Rows>
  static __device__ __forceinline__ void announce_partials(SharedMemory<Rows>&) {
    Partials::announce_partials();
  }
};

}  // namespace flash_mla::sm90::few_rows
