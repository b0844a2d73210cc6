// The shared memory of a thread block, and what its barriers say.
#pragma once

#include "cuda/combine/cut_unit.h"
#include "cuda/combine/gate.h"
#include "cuda/sm90/common/kv_pipeline.h"
#include "cuda/sm90/common/tile_ring.h"
#include "cuda/sm90/few_rows_decode/config.h"

namespace flash_mla::sm90::few_rows {

template <int Rows>
using WarpValues = float[kWarpgroupWarps][Rows];

// From the gatekeeper to those who merge. [0]: the unit that the part found begun; [1]: the one it left unfinished.
template <int Rows>
struct RolledUnits {
  cuda::CutUnit unit[2];
  cuda::Shares shares[2];
  void* out[2][Rows];  // where results of the rows go
  float* lse[2][Rows];
  float4 sums[kWarps][32];  // of warps that share an item
  float2 facts[kWarps];
  ptx::Barrier partials_blank;    // gatekeeper -> group
  ptx::Barrier partials_written;  // group -> all
  ptx::Barrier roll_called;       // each lane of the gatekeeper -> all: `shares`, `out`, `lse`
};

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
  CutUnits cut;              // of plans of many units (large_step.h)
  RolledUnits<Rows> rolled;  // of few (small_step.h)
  ptx::Barrier q_landed;     // copy engine -> group
  ptx::Barrier q_released;   // group -> query loader
};

static_assert(sizeof(SharedMemory<32>) <= kSharedMemoryLimitBytes);

// By one thread, one after the other: lanes that initialise one each would take longer.
template <class Step, int Rows>
__device__ __forceinline__ void init_barriers(SharedMemory<Rows>& smem) {
  init_ring(smem.ring, kWarpgroupWarps + 2);  // group, loaders
  init_pipeline(smem.kv, kWarpgroupWarps);
  Step::init_barriers(smem);
  smem.q_landed.init(1);
  smem.q_released.init(kWarpgroupWarps);
}

}  // namespace flash_mla::sm90::few_rows
