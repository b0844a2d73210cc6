// Steps 4 and 5 of docs/algorithm.md [scores]: one warpgroup computes S, the softmax's numerators P and the rows' sums.
//
//   waits for q_landed, k_landed, p_fetched
//   announces q_released, k_released (Q, rope), scores_done, p_published; writes lse
#pragma once

#include "core/partial.h"
#include "cuda/sm90/dense_decode/queries.h"
#include "cuda/sm90/dense_decode/scores.h"
#include "cuda/sm90/dense_decode/softmax.h"

namespace flash_mla::sm90 {

// What the rows of a tile see.
struct Visibility {
  int visible[2];          // tokens of the thread's two rows
  int first_masked_block;  // blocks before it are seen whole by every present row
};

__device__ __forceinline__ Visibility find_visibility(const Work& work, const TileRecord& tile) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
  Visibility v;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = tile::accumulator_row(warp, lane, 2 * h);
    v.visible[h] = row < tile.num_rows ? visible_to_row(work, tile, row) : tile.length;
  }
  v.first_masked_block = visible_to_row(work, tile, 0) / kBlockTokens;
  return v;
}

__device__ __forceinline__ void write_lse(const DecodeParams& params, const TileRecord& tile, const RowState& rows) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = tile::accumulator_row(warp, lane, 2 * h);
    const float sum = row_sum(rows.sum[h]);
    if (lane % 4 != 0 || row >= tile.num_rows) continue;
    const float lse = sum == 0.f ? kNegativeInfinity : (rows.reference[h] + log2f(sum)) * kLn2;
    if (tile.slot >= 0) {
      params.partials.rows[partial_row(params, tile, row)].lse = lse;
    } else if (params.lse.data != nullptr) {
      static_cast<float*>(params.lse.data)[row_offset(params.lse, params.work, tile, row)] = lse_for_api(lse);
    }
  }
}

template <class Element>
__device__ __forceinline__ void run_scores(SharedMemory& smem, const DecodeParams& params) {
  const int lane = threadIdx.x % 32;
  TileReader tiles;
  RingPosition strips;
  std::uint32_t blocks = 0, query_tiles = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    const int begin = tile->block_begin, end = tile->block_end;
    const Visibility v = find_visibility(params.work, *tile);
    RowState rows;
    QueryFragments q;
    const std::uint32_t query_place = strips.place();
    if (begin < end) {
      smem.kv.k_landed[query_place].wait(strips.parity());
      if (params.q_period == 0) gather_queries<Element>(smem, smem.kv.strips[query_place], params, *tile);
      load_query_fragments(smem.kv.strips[query_place], q);
      strips.advance(1);
      if (params.q_period > 0) smem.q_landed.wait(query_tiles++ & 1);
    }
#pragma unroll 1
    for (int block = begin; block < end; ++block, ++blocks) {
      const bool last = block + 1 == end;
      float s[kScoreRegisters];
      issue_scores<Element>(smem, q, strips, blocks, s);
      strips.advance(kLatentStrips);
      smem.p_fetched.wait((blocks & 1) ^ 1);
      ptx::warpgroup_wait<0>();
      if (lane == 0) smem.scores_done.arrive();
      // Not before a product has used what ldmatrix brings: an arrival does not wait for that, and the copy engine may
      // be faster.
      if (lane == 0 && block == begin) smem.kv.k_released[query_place].arrive();
      if (lane == 0 && last && params.q_period > 0) smem.q_released.arrive();
      if (lane == 0) smem.kv.k_released[KvRing::rope_place(blocks)].arrive();
      if (block >= v.first_masked_block) {
        mask_scores(s, block * kBlockTokens, rows_before_page(params.page_size, tile->length, block), v.visible);
      }
      write_softmax<Element>(smem, s, params.scale_log2, block == begin, rows);
      __syncwarp();
      if (lane == 0) smem.p_published.arrive();
    }
    write_lse(params, *tile, rows);
    tiles.finish(smem.ring);
  }
}

}  // namespace flash_mla::sm90
