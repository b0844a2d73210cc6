// Which element of a 64-row tile a thread of a warpgroup holds.
//
// Accumulators d [64 x n] of wgmma: thread (warp w, lane l) holds d[i], i = 4 j + 2 h + e, of
//   row 16 w + l / 4 + 8 h,  column 8 j + 2 (l mod 4) + e
// Fragments a [64 x 16]: register r = h + 2 g holds columns 8 g + 2 (l mod 4) + {0, 1} of row 16 w + l / 4 + 8 h, which
// is what accumulators 8 k .. 8 k + 7, rounded to 16 bits and packed in pairs, hold for columns 16 k .. 16 k + 15.
#pragma once

#include "core/host_device.h"
#include "cuda/tile/swizzle.h"

namespace flash_mla::tile {

inline constexpr int kTileRows = 64;
inline constexpr int kWarpRows = 16;

FLASH_MLA_HOST_DEVICE constexpr int accumulator_row(int warp, int lane, int i) {
  return kWarpRows * warp + lane / 4 + 8 * (i / 2 % 2);
}
FLASH_MLA_HOST_DEVICE constexpr int accumulator_column(int lane, int i) { return 8 * (i / 4) + 2 * (lane % 4) + i % 2; }

// Where lane `lane` points ldmatrix.x4 / stmatrix.x4 for the fragment of columns 16 step .. 16 step + 15 in a slice:
// its four matrices are (rows 0-7, rows 8-15) x (columns 0-7, columns 8-15) of the warp's 16 rows.
FLASH_MLA_HOST_DEVICE constexpr int fragment_bytes(int warp, int lane, int step) {
  return swizzled_chunk_bytes(kWarpRows * warp + lane % 16, 2 * step + lane / 16);
}

}  // namespace flash_mla::tile
