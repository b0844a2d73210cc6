// The shared memory of a thread block, and what its barriers say. Barriers are facts in the past tense; phases are
// counted in tiles or blocks since the kernel began.
#pragma once

#include "cuda/ptx/mbarrier.h"
#include "cuda/sm90/common/tile_ring.h"
#include "cuda/sm90/dense_decode/config.h"
#include "cuda/sm90/dense_decode/kv_ring.h"

namespace flash_mla::sm90 {

struct SharedMemory {
  KvRing kv;                      // released by scores (Q, rope), left (strips 0, 1 of a block), right (2, 3)
  Slice q[kQuerySlicesInMemory];  // the slices behind those in registers
  Slice p;                        // exp2 of the scores, rounded

  float rescale[kRows];                           // factor of O before this block's product
  std::uint32_t rescale_wanted[kWarpgroupWarps];  // by any of the warp's 16 rows
  TileRing ring;
  CutUnits cut;

  ptx::Barrier q_landed;     // copy engine -> scores
  ptx::Barrier q_released;   // scores -> query loader
  ptx::Barrier scores_done;  // scores -> right: the tensor cores have finished Q K^T of a block
  ptx::Barrier p_published;  // scores -> left, right: p, rescale, rescale_wanted
  ptx::Barrier p_fetched;    // left, right -> scores
};

static_assert(sizeof(SharedMemory) <= kSharedMemoryLimitBytes);

// By one thread, one after the other: lanes that initialise one each would take longer. Arrivals a phase are those of
// warps.
inline void __device__ init_barriers(SharedMemory& smem) {
  constexpr int kReaders = 3 * kWarpgroupWarps + 2;  // scores, left, right, loaders
  init_ring(smem.ring, kReaders);
  init_ring_of_strips(smem.kv);
  init_cut_units(smem.cut);
  smem.q_landed.init(1);
  smem.q_released.init(kWarpgroupWarps);
  smem.scores_done.init(kWarpgroupWarps);
  smem.p_published.init(kWarpgroupWarps);
  smem.p_fetched.init(2 * kWarpgroupWarps);
}

}  // namespace flash_mla::sm90
