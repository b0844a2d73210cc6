// Step 6 of docs/algorithm.md [left, right]: one warpgroup each accumulates O = P V for its 256 of the 512 columns.
//
//   waits for p_published; right also for scores_done of the next block, so that its product runs on the tensor cores
//   while the scores role is busy with the softmax
//   announces p_fetched, k_released (own strips); writes out or the partial
//
// O is divided by the sum of P as it was multiplied, rounded: then the rounding of a dominating weight cancels. (The
// reference of softmax.h lags, so that weight is no power of two.) Each role adds up P for itself.
#pragma once

#include "cuda/ptx/fence.h"
#include "cuda/sm90/dense_decode/epilogue.h"
#include "cuda/sm90/dense_decode/scores.h"
#include "cuda/sm90/dense_decode/softmax.h"

namespace flash_mla::sm90 {

template <Side S>
inline constexpr int kFirstStrip = static_cast<int>(S) * kSideSlices / kStripSlices;  // of a block's latent strips

__device__ __forceinline__ void clear(Accumulators& acc) {
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
    for (float& x : acc.o[piece]) x = 0.f;
  }
#pragma unroll
  for (float& x : acc.sum) x = 0.f;
}

__device__ __forceinline__ void rescale(const SharedMemory& smem, Accumulators& acc) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
  if (!smem.rescale_wanted[warp]) return;
  const float factor[2] = {smem.rescale[tile::accumulator_row(warp, lane, 0)],
                           smem.rescale[tile::accumulator_row(warp, lane, 2)]};
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
    for (int i = 0; i < kPieceRegisters; ++i) acc.o[piece][i] *= factor[i / 2 % 2];
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) acc.sum[h] *= factor[h];
}

__device__ __forceinline__ void fetch_probabilities(const SharedMemory& smem, std::uint32_t (&p)[kBlockSteps][4]) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < kBlockSteps; ++step) {
    ptx::load_matrix_x4(smem.p.bytes + tile::fragment_bytes(warp, lane, step), p[step]);
  }
}

template <class Element>
__device__ __forceinline__ void add_sums(const std::uint32_t (&p)[kBlockSteps][4], float (&sum)[2]) {
#pragma unroll
  for (int step = 0; step < kBlockSteps; ++step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float2 pair = unpack<Element>(p[step][r]);
      sum[r % 2] += pair.x + pair.y;
    }
  }
}

template <Side S>
__device__ __forceinline__ void zero_rows_from(SharedMemory& smem, const int (&places)[kPieces], int first_row) {
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    zero_rows(smem.kv.strips[places[piece]], kStripSlices, first_row);
  }
  ptx::fence_async_shared();
  ptx::sync_threads(kValuesBarrier + static_cast<int>(S), kWarpgroupThreads);
}

template <class Element>
__device__ __forceinline__ void issue_product(const std::uint32_t (&p)[kBlockSteps][4], std::uint64_t v,
                                              float (&o)[kPieceRegisters]) {
  using Mma = ptx::Wgmma<Element, kPieceColumns, ptx::Major::mn>;
  ptx::warpgroup_fence();
#pragma unroll
  for (int step = 0; step < kBlockSteps; ++step) {
    Mma::mma(o, p[step], tile::advance(v, tile::mn_major_step_bytes(step)), true);
  }
  ptx::warpgroup_commit();
}

// A strip's descriptor, made before it is waited for: behind the wait each instruction counts.
__device__ __forceinline__ std::uint64_t describe_values(SharedMemory& smem, int place) {
  const std::uint64_t v = tile::mn_major(ptx::shared_address(smem.kv.strips[place]), kSliceBytes);
  return v >> 32 << 32 | static_cast<std::uint32_t>(ptx::uniform(static_cast<int>(v)));
}

// O += P V of one block; releases the side's strips, which are in these places.
template <class Element>
__device__ __forceinline__ void multiply_values(SharedMemory& smem, const std::uint32_t (&p)[kBlockSteps][4],
                                                const std::uint64_t (&v)[kPieces], const int (&places)[kPieces],
                                                float (&o)[kPieces][kPieceRegisters]) {
  static_assert(kPieceSlices == kStripSlices && kPieces == 2);
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) issue_product<Element>(p, v[piece], o[piece]);
  ptx::warpgroup_wait<1>();
  if (lane == 0) smem.kv.k_released[places[0]].arrive();
  ptx::warpgroup_wait<0>();
  if (lane == 0) smem.kv.k_released[places[1]].arrive();
}

template <class Element, Side S>
__device__ __forceinline__ void run_values(SharedMemory& smem, const DecodeParams& params) {
  const int lane = threadIdx.x % 32;
  TileReader tiles;
  RingPosition strips;
  std::uint32_t blocks = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    const int begin = tile->block_begin, end = tile->block_end, length = tile->length;
    Accumulators acc;
    clear(acc);
    if (begin < end) strips.advance(1);  // over Q
#pragma unroll 1
    for (int block = begin; block < end; ++block, ++blocks, strips.advance(kLatentStrips)) {
      const int places[kPieces] = {static_cast<int>(strips.place(kFirstStrip<S>)),
                                   static_cast<int>(strips.place(kFirstStrip<S> + 1))};
      const std::uint64_t v[kPieces] = {describe_values(smem, places[0]), describe_values(smem, places[1])};
      smem.p_published.wait(blocks & 1);
      // Every phase is waited for once; that of a first block is over, and the next cannot be before p_fetched.
      if (S == Side::right && block == begin) smem.scores_done.wait(blocks & 1);
      std::uint32_t p[kBlockSteps][4];
      fetch_probabilities(smem, p);
      rescale(smem, acc);
      __syncwarp();
      if (lane == 0) smem.p_fetched.arrive();
      const int valid_rows = length - block * kBlockTokens;
      if (valid_rows < kBlockTokens && !page_is_block(params.page_size))
        zero_rows_from<S>(smem, places, max_of(valid_rows, 0));
      if (S == Side::right && block + 1 < end) smem.scores_done.wait((blocks + 1) & 1);
      multiply_values<Element>(smem, p, v, places, acc.o);
      add_sums<Element>(p, acc.sum);  // last, when nobody waits for this role
    }
    write_tile<Element, S>(params, *tile, acc);
    tiles.finish(smem.ring);
  }
}

}  // namespace flash_mla::sm90
