// Step 8 of docs/algorithm.md [gatekeeper]: one warp of each thread block finds the units that its part has cut, says
// when its partials of them are written, and learns which shares of the merge the thread block has.
//
//   gatekeeper  waits for kPartialsWritten; announces kGatesAnswered
#pragma once

#include "cuda/combine/cut_unit.h"
#include "cuda/combine/gate.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/sm90/common/params.h"

namespace flash_mla::sm90 {

// From the gatekeeper to those who merge. [0]: the unit that the part found begun; [1]: the one it left unfinished.
struct CutUnits {
  cuda::CutUnit unit[2];
  cuda::Shares shares[2];
};

// Two named barriers. WritingWarps write partials, MergingWarps merge; the gatekeeper is one more at either.
template <int Written, int WritingWarps, int Answered, int MergingWarps>
struct GateBarriers {
  // By who writes partials, after its last one.
  static __device__ __forceinline__ void announce_partials() { ptx::arrive_threads(Written, (WritingWarps + 1) * 32); }
  // By the gatekeeper.
  static __device__ __forceinline__ void wait_for_partials() { ptx::sync_threads(Written, (WritingWarps + 1) * 32); }
  static __device__ __forceinline__ void announce_answers() { ptx::arrive_threads(Answered, (MergingWarps + 1) * 32); }
  // By who merges.
  static __device__ __forceinline__ void wait_for_gates() { ptx::sync_threads(Answered, (MergingWarps + 1) * 32); }
};

// Lane 0 keeps the gate of one unit, lane 1 that of the other. The kernel before must have finished.
template <class Barriers>
__device__ __forceinline__ void run_gatekeeper(CutUnits& cut, const DecodeParams& params, int rows_per_thread_block) {
  const int lane = threadIdx.x % 32, part = blockIdx.x / params.cohort, member = blockIdx.x % params.cohort;
  cuda::CutUnit unit;
  if (lane < 2) {
    unit = cuda::find_cut_unit(params.work, params.parts, part, lane == 1, member * rows_per_thread_block,
                               rows_per_thread_block);
    cut.unit[lane] = unit;
  }
  const bool is_cut = unit.num_rows > 0;
  cuda::Gate gate(params.partials.gates + unit.first_part * std::int64_t{params.cohort} + member);
  if (is_cut) gate.open(params.launch_tag);
  __syncwarp();
  Barriers::wait_for_partials();
  cuda::Shares shares;
  bool known = is_cut ? gate.publish(unit.num_splits, unit.split, &shares) : true;
  while (!known) known = gate.look(unit.num_splits, unit.split, &shares);
  if (lane < 2) cut.shares[lane] = shares;
  __syncwarp();
  Barriers::announce_answers();
  if (is_cut) gate.finish(unit.num_splits);
}

}  // namespace flash_mla::sm90
