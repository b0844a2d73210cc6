// The shared memory of a thread block, and what its barriers say.
#pragma once

#include "cuda/sm90/common/kv_pipeline.h"
#include "cuda/sm90/common/tile_ring.h"
#include "cuda/sm90/few_rows_decode/config.h"

namespace flash_mla::sm90::few_rows {

template <int Rows>
using WarpValues = float[kWarpgroupWarps][Rows];

template <int Rows>
struct SharedMemory {
  KvPipeline<kStages> kv;
  alignas(1024) unsigned char q[kSlices][kQuerySliceBytes<Rows>];  // [rows][64 columns], swizzled
  unsigned char p[kQuerySliceBytes<Rows>];          // [rows][64 tokens], swizzled: exp2 of the scores, rounded
  unsigned char results[Rows * kResultPitchBytes];  // [rows][512], 16 bits each
  // Of the rows over a warp's 16 tokens. Not one array for both: a warp may be at the next tile's maxima while another
  // still reads the sums.
  WarpValues<Rows> maxima, sums;
  TileRing ring;
  CutUnits cut;
  ptx::Barrier q_landed;    // copy engine -> group
  ptx::Barrier q_released;  // group -> query loader
};

static_assert(sizeof(SharedMemory<32>) <= kSharedMemoryLimitBytes);

// By one thread, one after the other: lanes that initialise one each would take longer.
template <int Rows>
__device__ __forceinline__ void init_barriers(SharedMemory<Rows>& smem) {
  init_ring(smem.ring, kWarpgroupWarps + 2);  // group, loaders
  init_pipeline(smem.kv, kWarpgroupWarps);
  init_cut_units(smem.cut);
  smem.q_landed.init(1);
  smem.q_released.init(kWarpgroupWarps);
}

}  // namespace flash_mla::sm90::few_rows
