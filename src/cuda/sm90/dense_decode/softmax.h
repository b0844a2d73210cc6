// Step 5 of docs/algorithm.md [scores]: P = exp2(S scale_log2 - reference), with the reference a maximum of the row
// that may lag behind.
//
// exp2 is taken against the reference at once, without waiting for this block's maximum: where P of a row exceeds
// kLargestP, its warp raises the references, publishes the factors by which O must be rescaled, and takes exp2 again. A
// tile's first block has no reference yet, so there the maximum is taken first. A reference of -inf (no token seen)
// subtracts 0.
//
// Thread l of a warp holds rows l / 4 and l / 4 + 8 of the warp's 16 (tile/accumulator.h).
#pragma once

#include "core/online_softmax.h"
#include "cuda/ptx/matrix.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/sm90/common/element.h"
#include "cuda/sm90/dense_decode/scores.h"
#include "cuda/sm90/dense_decode/smem.h"

namespace flash_mla::sm90 {

// Of the thread's two rows. `sum` is of this thread's columns only until reduce_sums().
struct RowState {
  float reference[2] = {kNegativeInfinity, kNegativeInfinity};
  float sum[2] = {0.f, 0.f};
};

// Reductions over the four threads of a row.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ bool row_any(bool x) {
  return __ballot_sync(kAllLanes, x) >> (threadIdx.x % 32 / 4 * 4) & 0xf;
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Tokens at or past visible[h] of row h get -inf, as do the block's `rows_before` first rows, which are no tokens.
// `first_token` is the one behind them.
__device__ __forceinline__ void mask_scores(float (&s)[kScoreRegisters], int first_token, int rows_before,
                                            const int (&visible)[2]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kScoreRegisters; ++i) {
    const int at = tile::accumulator_column(lane, i) - rows_before;
    if (!sees(at, visible[i / 2 % 2] - first_token)) s[i] = kNegativeInfinity;
  }
}

// The largest score of each of the thread's rows, over its columns.
__device__ __forceinline__ void find_maxima(const float (&s)[kScoreRegisters], float (&maximum)[2]) {
  maximum[0] = maximum[1] = kNegativeInfinity;
#pragma unroll
  for (int i = 0; i < kScoreRegisters; ++i) maximum[i / 2 % 2] = fmaxf(maximum[i / 2 % 2], s[i]);
}

// Writes P of the warp's rows to shared memory; adds up its sums over the thread's columns, and finds the largest P of
// each row there, among the columns of even and of odd number.
template <class Element>
__device__ __forceinline__ void write_probabilities(SharedMemory& smem, const float (&s)[kScoreRegisters],
                                                    float scale_log2, const float (&reference)[2], float (&sum)[2],
                                                    std::uint32_t (&largest)[2]) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
  float offset[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    offset[h] = -finite_reference(reference[h]);
    sum[h] = 0.f;
    largest[h] = 0;
  }
#pragma unroll
  for (int step = 0; step < kBlockTokens / tile::kStepK; ++step) {
    float p[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) p[i] = ptx::exp2_approx(fmaf(s[8 * step + i], scale_log2, offset[i / 2 % 2]));
    sum[0] += (p[0] + p[1]) + (p[4] + p[5]);
    sum[1] += (p[2] + p[3]) + (p[6] + p[7]);
    const std::uint32_t fragment[4] = {pack<Element>(p[0], p[1]), pack<Element>(p[2], p[3]), pack<Element>(p[4], p[5]),
                                       pack<Element>(p[6], p[7])};
    ptx::store_matrix_x4(smem.p.bytes + tile::fragment_bytes(warp, lane, step), fragment);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      largest[h] = larger_pair<Element>(largest[h], larger_pair<Element>(fragment[h], fragment[h + 2]));
    }
  }
}

// Whether a row lags: `largest` is of P, as it was rounded, against the reference. Without a reference any score does.
template <class Element>
__device__ __forceinline__ bool exceeds_reference(std::uint32_t largest) {
  const float2 pair = unpack<Element>(largest);
  return fmaxf(pair.x, pair.y) > kLargestP<Element>;
}

// Raises the references of those of the warp's rows that lag; returns the factors for what was accumulated. A row is
// judged by itself, so its result does not depend on the rows beside it.
template <class Element>
__device__ __forceinline__ void raise_references(RowState& rows, const float (&s)[kScoreRegisters],
                                                 const std::uint32_t (&largest)[2], float scale_log2,
                                                 float (&factor)[2]) {
  float maximum[2];
  find_maxima(s, maximum);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float old = rows.reference[h], highest = row_max(maximum[h]) * scale_log2;
    const bool exceeded = row_any(exceeds_reference<Element>(largest[h]));  // all lanes vote, whatever their rows
    const bool none = old == kNegativeInfinity, lags = none || exceeded;
    if (lags) rows.reference[h] = highest;
    factor[h] = lags && !none ? ptx::exp2_approx(old - highest) : 1.f;
    rows.sum[h] *= factor[h];
  }
}

// Turns the scores of a block into P, factors and flag for the values roles. The caller has waited for p_fetched and
// announces p_published. After a tile's first block nothing has been accumulated that might be rescaled.
template <class Element>
__device__ __forceinline__ void write_softmax(SharedMemory& smem, const float (&s)[kScoreRegisters], float scale_log2,
                                              bool first_block, RowState& rows) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
  float sum[2];
  std::uint32_t largest[2] = {0, 0};
  bool rescale = false;
  if (!first_block) {
    write_probabilities<Element>(smem, s, scale_log2, rows.reference, sum, largest);
    const bool lags = exceeds_reference<Element>(larger_pair<Element>(largest[0], largest[1])) ||
                      fminf(rows.reference[0], rows.reference[1]) == kNegativeInfinity;
    rescale = __any_sync(kAllLanes, lags);
  }
  if (first_block || rescale) {
    float factor[2];
    raise_references<Element>(rows, s, largest, scale_log2, factor);
    write_probabilities<Element>(smem, s, scale_log2, rows.reference, sum, largest);
    if (rescale && lane % 4 == 0) {
      smem.rescale[tile::accumulator_row(warp, lane, 0)] = factor[0];
      smem.rescale[tile::accumulator_row(warp, lane, 2)] = factor[1];
    }
  }
  if (lane == 0) smem.rescale_wanted[warp] = rescale;
  rows.sum[0] += sum[0];
  rows.sum[1] += sum[1];
}

}  // namespace flash_mla::sm90
