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
  ptx::Barrier gates_answered;                  // gatekeeper, a lane for each unit -> those who merge: `shares`
  ptx::Barrier partials_landed[kMergingWarps];  // copy engine -> a merging warp
};

// By one thread.
inline __device__ void init_cut_units(CutUnits& cut) {
  cut.gates_answered.init(2);
#pragma unroll
  for (ptx::Barrier& landed : cut.partials_landed) landed.init(1);
}

// A named barrier, at which so many warps meet: those who write partials and the gatekeeper, who alone waits.
template <int Written, int Warps>
struct PartialsBarrier {
  static __device__ __forceinline__ void announce_partials() { ptx::arrive_threads(Written, Warps * 32); }
  static __device__ __forceinline__ void wait_for_partials() { ptx::sync_threads(Written, Warps * 32); }
};

// One warp's view of the gates: lane 0 keeps that of one unit, lane 1 that of the other. Of other warps: nothing to
// keep.
class Gatekeeper {
 public:
  // Before the thread block first meets; needs no more than the dealer does of what came before.
  __device__ __forceinline__ void find_units(CutUnits& cut, const DecodeParams& params, int rows_per_thread_block) {
    const int lane = threadIdx.x % 32, part = blockIdx.x / params.cohort, member = blockIdx.x % params.cohort;
    if (lane >= 2) return;
    const cuda::CutUnit unit = cuda::find_cut_unit(params.work, params.parts, part, lane == 1,
                                                   member * rows_per_thread_block, rows_per_thread_block);
    cut.unit[lane] = unit;
    if (unit.num_rows <= 0) return;
    num_splits_ = unit.num_splits, split_ = unit.split;
    gate_ = cuda::Gate(params.partials.gates + unit.first_part * std::int64_t{params.cohort} + member);
  }

  // The kernel before must have finished.
  __device__ __forceinline__ void open(const DecodeParams& params) {
    if (num_splits_ > 0) gate_.open(params.launch_tag, num_splits_);
    __syncwarp();
  }

  // Says that the part's partials are written, once they are, and learns the shares.
  template <class Partials>
  __device__ __forceinline__ void answer(CutUnits& cut) {
    Partials::wait_for_partials();
    const int lane = threadIdx.x % 32;
    const bool is_cut = num_splits_ > 0;
    cuda::Shares shares;
    bool known = is_cut ? gate_.publish(num_splits_, split_, &shares) : true;
    while (!known) known = gate_.look(num_splits_, split_, &shares);
    __syncwarp();  // else lanes without a gate would go on by themselves, and the warp would merge in two
    if (lane < 2) {
      cut.shares[lane] = shares;
      cut.gates_answered.arrive();
    }
    if (is_cut) gate_.count();
  }

  // After the last look at the gates.
  __device__ __forceinline__ void clear() {
    if (num_splits_ > 0) gate_.clear(num_splits_);
  }

 private:
  cuda::Gate gate_{nullptr};
  int num_splits_ = 0, split_ = 0;  // 0: no gate
};

}  // namespace flash_mla::sm90
