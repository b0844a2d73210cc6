// Step 8 of docs/algorithm.md [gatekeeper]: one warp of each thread block finds the units that its part has cut, says
// when its partials of them are written, and learns which shares of the merge the thread block has.
//
//   gatekeeper  waits for kPartialsWritten; announces gates_answered
#pragma once

#include "cuda/combine/cut_unit.h"
#include "cuda/combine/gate.h"
#include "cuda/ptx/mbarrier.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/sm90/common/params.h"

namespace flash_mla::sm90 {

inline constexpr int kMergingWarps = 8;

// From the gatekeeper to those who merge. [0]: the unit that the part found begun; [1]: the one it left unfinished.
struct CutUnits {
  cuda::CutUnit unit[2];
  cuda::Shares shares[2];
  ptx::Barrier gates_answered;                  // gatekeeper, a lane for each unit -> those who merge
  ptx::Barrier partials_landed[kMergingWarps];  // copy engine -> a merging warp
};

inline __device__ void init_cut_units(CutUnits& cut, int lane) {
  if (lane < kMergingWarps) cut.partials_landed[lane].init(1);
  if (lane == kMergingWarps) cut.gates_answered.init(2);
}

// A named barrier, at which so many warps meet: those who write partials and the gatekeeper, who alone waits.
template <int Written, int Warps>
struct PartialsBarrier {
  static __device__ __forceinline__ void announce_partials() { ptx::arrive_threads(Written, Warps * 32); }
  static __device__ __forceinline__ void wait_for_partials() { ptx::sync_threads(Written, Warps * 32); }
};

// A lane's gate, if it has one, after its last look at it.
struct KeptGate {
  cuda::Gate gate{nullptr};
  int num_splits = 0;

  __device__ void clear() {
    if (num_splits > 0) gate.clear(num_splits);
  }
};

// Lane 0 keeps the gate of one unit, lane 1 that of the other. The kernel before must have finished.
template <class Partials>
__device__ __forceinline__ KeptGate run_gatekeeper(CutUnits& cut, const DecodeParams& params,
                                                   int rows_per_thread_block) {
  const int lane = threadIdx.x % 32, part = blockIdx.x / params.cohort, member = blockIdx.x % params.cohort;
  cuda::CutUnit unit;
  if (lane < 2) {
    unit = cuda::find_cut_unit(params.work, params.parts, part, lane == 1, member * rows_per_thread_block,
                               rows_per_thread_block);
    cut.unit[lane] = unit;
  }
  const bool is_cut = unit.num_rows > 0;
  cuda::Gate gate(params.partials.gates + unit.first_part * std::int64_t{params.cohort} + member);
  if (is_cut) gate.open(params.launch_tag, unit.num_splits);
  __syncwarp();
  Partials::wait_for_partials();
  cuda::Shares shares;
  bool known = is_cut ? gate.publish(unit.num_splits, unit.split, &shares) : true;
  while (!known) known = gate.look(unit.num_splits, unit.split, &shares);
  if (lane < 2) {
    cut.shares[lane] = shares;
    cut.gates_answered.arrive();
  }
  if (is_cut) gate.count();
  return {gate, is_cut ? unit.num_splits : 0};
}

}  // namespace flash_mla::sm90
