// Step 5 of docs/algorithm.md [group]: P^T = exp2(S^T scale_log2 - maximum) with the running maximum of each row.
//
// Thread l of warp w holds tokens 16 w + l / 4 and + 8 of the block, for rows 8 j + 2 (l mod 4) + e of the tile
// (tile/accumulator.h, transposed); column i = 2 j + e of the thread is such a row. A row's tokens are spread over the
// eight threads of equal l mod 4 in each of four warps, so maxima pass through shared memory; every thread keeps the
// state of its own rows.
#pragma once

#include "core/online_softmax.h"
#include "cuda/ptx/fence.h"
#include "cuda/ptx/matrix.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/sm90/common/element.h"
#include "cuda/sm90/few_rows_decode/smem.h"

namespace flash_mla::sm90::few_rows {

// Of the thread's rows. `sum` is of the thread's own tokens only.
template <int Rows>
struct RowState {
  float maximum[kThreadColumns<Rows>];  // of the scores times scale_log2
  float sum[kThreadColumns<Rows>];
};

// The thread's row of accumulator i.
__device__ __forceinline__ constexpr int column_of(int i) { return 2 * (i / 4) + i % 2; }
__device__ __forceinline__ int row_of_column(int lane, int column) {
  return 8 * (column / 2) + 2 * (lane % 4) + column % 2;
}
// The thread's token of accumulator i, within the block.
__device__ __forceinline__ int token_of(int warp, int lane, int i) { return 16 * warp + lane / 4 + 8 * (i / 2 % 2); }

// Reduces each column over the group's 64 tokens; every thread gets the result. All threads of the group call.
template <int Rows, class Op>
__device__ __forceinline__ void reduce_rows(WarpValues<Rows>& of_warps, float (&value)[kThreadColumns<Rows>], Op op) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
#pragma unroll
  for (float& x : value) {
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) x = op(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  if (lane < 4) {
#pragma unroll
    for (int j = 0; j < kThreadColumns<Rows> / 2; ++j) {
      *reinterpret_cast<float2*>(&of_warps[warp][8 * j + 2 * lane]) = {value[2 * j], value[2 * j + 1]};
    }
  }
  ptx::sync_threads(kGroupBarrier, kWarpgroupThreads);
#pragma unroll
  for (int j = 0; j < kThreadColumns<Rows> / 2; ++j) {
#pragma unroll
    for (int w = 0; w < kWarpgroupWarps; ++w) {
      const float2 of_warp = *reinterpret_cast<const float2*>(&of_warps[w][8 * j + 2 * (lane % 4)]);
      value[2 * j] = w == 0 ? of_warp.x : op(value[2 * j], of_warp.x);
      value[2 * j + 1] = w == 0 ? of_warp.y : op(value[2 * j + 1], of_warp.y);
    }
  }
}

// Tokens at or past visible[column] get -inf, as do the block's `rows_before` first rows, which are no tokens.
// `first_token` is the one behind them.
template <int Rows>
__device__ __forceinline__ void mask_scores(float (&s)[kTileRegisters<Rows>], int first_token, int rows_before,
                                            const int (&visible)[kThreadColumns<Rows>]) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kTileRegisters<Rows>; ++i) {
    if (!sees(token_of(warp, lane, i) - rows_before, visible[column_of(i)] - first_token)) s[i] = kNegativeInfinity;
  }
}

// Raises the maxima to those of the block's scores; returns the factors for what was accumulated before.
template <int Rows>
__device__ __forceinline__ void raise_maxima(SharedMemory<Rows>& smem, const float (&s)[kTileRegisters<Rows>],
                                             float scale_log2, RowState<Rows>& rows,
                                             float (&factor)[kThreadColumns<Rows>]) {
  float highest[kThreadColumns<Rows>];
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) {
    const int i = 4 * (c / 2) + c % 2;
    highest[c] = fmaxf(s[i], s[i + 2]);
  }
  reduce_rows<Rows>(smem.maxima, highest, [](float a, float b) { return fmaxf(a, b); });
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) {
    const float old = rows.maximum[c], raised = fmaxf(old, highest[c] * scale_log2);
    factor[c] = raised > old ? ptx::exp2_approx(old - raised) : 1.f;  // of -inf: 0
    rows.maximum[c] = raised;
    rows.sum[c] *= factor[c];
  }
}

// P^T to shared memory, visible to the tensor cores once the group has met.
template <class Element, int Rows>
__device__ __forceinline__ void write_probabilities(SharedMemory<Rows>& smem, const float (&s)[kTileRegisters<Rows>],
                                                    float scale_log2, RowState<Rows>& rows) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
#pragma unroll
  for (int first_row = 0; first_row < Rows; first_row += 16) {
    float p[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int at = first_row / 2 + i;
      const float maximum = rows.maximum[column_of(at)];
      p[i] = ptx::exp2_approx(fmaf(s[at], scale_log2, maximum == kNegativeInfinity ? 0.f : -maximum));
      rows.sum[column_of(at)] += p[i];
    }
    const std::uint32_t pairs[4] = {pack<Element>(p[0], p[1]), pack<Element>(p[2], p[3]), pack<Element>(p[4], p[5]),
                                    pack<Element>(p[6], p[7])};
    // Matrices (tokens 0-7, tokens 8-15) x (rows 0-7, rows 8-15), transposed on the way.
    const int row = first_row + lane / 16 * 8 + lane % 8, chunk = 2 * warp + lane / 8 % 2;
    ptx::store_matrix_x4_transposed(smem.p + tile::swizzled_chunk_bytes(row, chunk), pairs);
  }
  ptx::fence_async_shared();
  ptx::sync_threads(kGroupBarrier, kWarpgroupThreads);
}

// The sums over all tokens, once those of the last block are in.
template <int Rows>
__device__ __forceinline__ void add_tokens(SharedMemory<Rows>& smem, const RowState<Rows>& rows,
                                           float (&sum)[kThreadColumns<Rows>]) {
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) sum[c] = rows.sum[c];
  reduce_rows<Rows>(smem.sums, sum, [](float a, float b) { return a + b; });
}

}  // namespace flash_mla::sm90::few_rows
