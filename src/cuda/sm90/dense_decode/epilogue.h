// Step 7 of docs/algorithm.md [left, right]: O / sum to memory, as result rows or as an unmerged partial. Run by the
// values roles; waits for nothing, announces nothing.
//
// A thread holds pairs of neighbouring columns of two rows. Stored like that, every instruction would touch 8 rows with
// 16 or 32 bytes each; threads of a row first exchange pairs, so that each stores 16 bytes and a row gets 64 at a time.
#pragma once

#include "cuda/sm90/dense_decode/queries.h"
#include "cuda/sm90/dense_decode/smem.h"
#include "cuda/sm90/dense_decode/softmax.h"

namespace flash_mla::sm90 {

// A product covers two slices: 128 columns.
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

// One of the thread's two rows, times a factor, in 16 bits. All lanes call; only rows that are present are written.
template <class Element>
__device__ __forceinline__ void store_row(Element* to, bool present, const float (&o)[kPieces][kPieceRegisters], int h,
                                          float factor) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
    for (int group = 0; group < kPieceColumns / 32; ++group) {  // 32 columns: 8 a thread
      std::uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int i = 16 * group + 4 * j + 2 * h;
        x[j] = pack<Element>(o[piece][i] * factor, o[piece][i + 1] * factor);
      }
      transpose_quad(x);
      if (present) {
        *reinterpret_cast<uint4*>(to + piece * kPieceColumns + 32 * group + 8 * t) = uint4{x[0], x[1], x[2], x[3]};
      }
    }
  }
}

// The same in 32 bits: neighbours exchange pairs of two chunks of 8 columns.
template <>
__device__ __forceinline__ void store_row(float* to, bool present, const float (&o)[kPieces][kPieceRegisters], int h,
                                          float factor) {
  const int t = threadIdx.x % 4, odd = t & 1;
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
    for (int group = 0; group < kPieceColumns / 16; ++group) {
      const int i = 8 * group + 2 * h;
      const float2 a = {o[piece][i] * factor, o[piece][i + 1] * factor};
      const float2 b = {o[piece][i + 4] * factor, o[piece][i + 5] * factor};
      const float2 sent = odd ? a : b;
      const float2 received = {__shfl_xor_sync(kAllLanes, sent.x, 1), __shfl_xor_sync(kAllLanes, sent.y, 1)};
      if (present) {
        *reinterpret_cast<float4*>(to + piece * kPieceColumns + 16 * group + 8 * odd + 2 * (t - odd)) =
            odd ? float4{received.x, received.y, b.x, b.y} : float4{a.x, a.y, received.x, received.y};
      }
    }
  }
}

template <class Element, Side S>
__device__ __forceinline__ void write_tile(const DecodeParams& params, const TileRecord& tile,
                                           const Accumulators& acc) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
  constexpr int kFirstColumn = static_cast<int>(S) * kSideSlices * tile::kSliceColumns;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = tile::accumulator_row(warp, lane, 2 * h);
    const bool present = row < tile.num_rows;
    if (!__any_sync(kAllLanes, present)) continue;
    const float sum = row_sum(acc.sum[h]), factor = sum == 0.f ? 0.f : 1.f / sum;  // 0: the row saw no token
    if (tile.slot >= 0) {
      const std::int64_t partial_row =
          static_cast<std::int64_t>(tile.slot) * params.work.rows_per_unit + tile.row_in_unit + row;
      store_row(params.partial_out + partial_row * kLatentDim + kFirstColumn, present, acc.o, h, factor);
    } else {
      const std::int64_t offset = present ? row_offset(params.out, params.work, tile, row) : 0;
      store_row(static_cast<Element*>(params.out.data) + offset + kFirstColumn, present, acc.o, h, factor);
    }
  }
}

}  // namespace flash_mla::sm90
