// The shared memory of a thread block, and what its barriers say.
#pragma once

#include "cuda/sm90/common/kv_pipeline.h"
#include "cuda/sm90/common/tile_ring.h"
#include "cuda/sm90/few_rows_decode/config.h"

namespace flash_mla::sm90::few_rows {

using WarpValues = float[kWarpgroupWarps][kGroupRows];

// Of one group; only its own warps touch it.
struct alignas(1024) GroupMemory {
  unsigned char p[kGroupSliceBytes];                      // [16 rows][64 tokens], swizzled: exp2 of the scores, rounded
  unsigned char results[kGroupRows * kResultPitchBytes];  // [16 rows][512], 16 bits each
  // Of the rows over a warp's 16 tokens. Not one array for both: a warp may be at the next tile's maxima while another
  // still reads the sums.
  WarpValues maxima, sums;
};

template <int Groups>
struct SharedMemory {
  KvPipeline<Config<Groups>::kStages> kv;
  alignas(1024) unsigned char q[kSlices][Groups * kGroupSliceBytes];  // [rows of all groups][64 columns], swizzled
  GroupMemory groups[Groups];
  TileRing ring;
  CutUnits cut;
  ptx::Barrier q_landed;    // copy engine -> groups
  ptx::Barrier q_released;  // groups -> query loader
};

static_assert(sizeof(SharedMemory<2>) <= kSharedMemoryLimitBytes);

// By the lanes of one warp.
template <int Groups>
__device__ __forceinline__ void init_barriers(SharedMemory<Groups>& smem, int lane) {
  init_ring(smem.ring, lane, Config<Groups>::kConsumerWarps + 2);  // consumers, loaders
  init_pipeline(smem.kv, lane, Config<Groups>::kConsumerWarps);
  if (lane > 0) return;
  smem.q_landed.init(1);
  smem.q_released.init(Config<Groups>::kConsumerWarps);
}

}  // namespace flash_mla::sm90::few_rows
