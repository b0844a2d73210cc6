// Step 7 of docs/algorithm.md [left, right]: O / sum to memory, as result rows or as an unmerged partial. Run by the
// values roles; waits for nothing, announces nothing.
//
// A thread holds pairs of neighbouring columns of two rows. Of result rows, the threads of a row exchange pairs, so
// that each stores 16 neighbouring bytes. A partial is stored in f16 with scales (combine/partials.h), in the order in
// which threads hold it (tile/column_order.h).
#pragma once

#include "cuda/combine/partials.h"
#include "cuda/sm90/dense_decode/queries.h"
#include "cuda/sm90/dense_decode/smem.h"
#include "cuda/sm90/dense_decode/softmax.h"
#include "cuda/tile/column_order.h"

namespace flash_mla::sm90 {

// A product covers two slices, 128 columns, of which a partial has one scale.
inline constexpr int kPieces = 2;
inline constexpr int kPieceSlices = kSideSlices / kPieces;
inline constexpr int kPieceColumns = kPieceSlices * tile::kSliceColumns;
inline constexpr int kPieceRegisters = kPieceColumns / 2;
inline constexpr int kBlockSteps = kBlockTokens / tile::kStepK;

// Of the thread's two rows: columns [256 side, 256 side + 256) of O, and the sum of P over the thread's tokens.
struct Accumulators {
  float o[kPieces][kPieceRegisters];
  float sum[2];
};

// Lane t of four holds x[j] = m[t][j]; afterwards x[j] = m[j][t].
__device__ __forceinline__ void transpose_quad(std::uint32_t (&x)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
  const auto exchange = [](std::uint32_t& low_item, std::uint32_t& high_item, bool keeps_high, int distance) {
    const std::uint32_t received = __shfl_xor_sync(kAllLanes, keeps_high ? low_item : high_item, distance);
    (keeps_high ? low_item : high_item) = received;
  };
  exchange(x[0], x[1], odd, 1);
  exchange(x[2], x[3], odd, 1);
  exchange(x[0], x[2], high, 2);
  exchange(x[1], x[3], high, 2);
}

// The largest finite |o| of each piece of the thread's rows h: set h * kPieces + piece.
__device__ __forceinline__ void find_largest(const Accumulators& acc, float (&largest)[2 * kPieces]) {
  find_largest_finite(largest, [&](auto raise) {
#pragma unroll
    for (int i = 0; i < kPieceRegisters; ++i) {
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) raise(i / 2 % 2 * kPieces + piece, acc.o[piece][i]);
    }
  });
#pragma unroll
  for (float& x : largest) x = row_max(x);
}

template <Side S>
__device__ __forceinline__ void write_partial(const DecodeParams& params, const TileRecord& tile,
                                              const Accumulators& acc) {
  static_assert(kPieceColumns == cuda::kScaledColumns);
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
  float largest[2 * kPieces];
  find_largest(acc, largest);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = tile::accumulator_row(warp, lane, 2 * h);
    const float inverse_sum = inverse(row_sum(acc.sum[h]));
    const bool present = row < tile.num_rows;
    const std::int64_t at = partial_row(params, tile, row);
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int index = static_cast<int>(S) * kPieces + piece;
      const cuda::PowerOfTwo power = cuda::scale_to_f16(largest[h * kPieces + piece]);
      if (present && lane % 4 == 0) params.partials.rows[at].scale[index] = power.inverse * inverse_sum;
      std::uint16_t* const to = params.partials.values_of(at) + index * kPieceColumns + 8 * (lane % 4);
#pragma unroll
      for (int group = 0; group < kPieceColumns / 32; ++group) {  // tile::ColumnOrder::pairs
        std::uint32_t x[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int i = 16 * group + 4 * j + 2 * h;
          x[j] = pack<__half>(acc.o[piece][i] * power.factor, acc.o[piece][i + 1] * power.factor);
        }
        if (present) *reinterpret_cast<uint4*>(to + 32 * group) = uint4{x[0], x[1], x[2], x[3]};
      }
    }
  }
}

template <class Element, Side S>
__device__ __forceinline__ void write_result_row(const DecodeParams& params, const TileRecord& tile, int row,
                                                 const Accumulators& acc, int h, float inverse_sum) {
  const int t = threadIdx.x % 4;
  const bool present = row < tile.num_rows;
  const std::int64_t offset = present ? row_offset(params.out, params.work, tile, row) : 0;
  Element* const to =
      static_cast<Element*>(params.out.data) + offset + static_cast<int>(S) * kSideSlices * tile::kSliceColumns + 8 * t;
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
    for (int group = 0; group < kPieceColumns / 32; ++group) {  // 32 columns: 8 a thread
      std::uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int i = 16 * group + 4 * j + 2 * h;
        x[j] = pack<Element>(acc.o[piece][i] * inverse_sum, acc.o[piece][i + 1] * inverse_sum);
      }
      transpose_quad(x);
      if (present) *reinterpret_cast<uint4*>(to + piece * kPieceColumns + 32 * group) = uint4{x[0], x[1], x[2], x[3]};
    }
  }
}

template <class Element, Side S>
__device__ __forceinline__ void write_tile(const DecodeParams& params, const TileRecord& tile,
                                           const Accumulators& acc) {
  if (tile.slot >= 0) {
    write_partial<S>(params, tile, acc);
    return;
  }
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = tile::accumulator_row(warp, lane, 2 * h);
    if (!__any_sync(kAllLanes, row < tile.num_rows)) continue;
    write_result_row<Element, S>(params, tile, row, acc, h, inverse(row_sum(acc.sum[h])));
  }
}

}  // namespace flash_mla::sm90
