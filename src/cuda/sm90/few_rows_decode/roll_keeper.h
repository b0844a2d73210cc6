// Step 8 of docs/algorithm.md [gatekeeper]: one warp of each thread block finds the units that its part has cut, makes
// its partials' memory blank (combine/blank.h), and learns which shares of the merge the thread block has.
//
//   waits for partials_written, where not all parts of a unit can run at once; announces partials_blank, roll_called
#pragma once

#include "cuda/combine/blank.h"
#include "cuda/combine/cut_unit.h"
#include "cuda/combine/merged_row.h"
#include "cuda/combine/roll_call.h"
#include "cuda/sm90/few_rows_decode/smem.h"

namespace flash_mla::sm90::few_rows {

// One warp's view of the rolls: lane 0 keeps that of the unit which the part found begun, lane 1 that of the one which
// it left unfinished. Of other warps: nothing to keep.
template <int Rows>
class RollKeeper {
 public:
  // Before the thread block first meets; needs no more than the dealer does of what came before.
  __device__ __forceinline__ void find_units(RolledUnits<Rows>& cut, const DecodeParams& params) {
    const int lane = threadIdx.x % 32;
    const auto part = static_cast<std::int32_t>(blockIdx.x);
    if (lane < 2) {
      const cuda::CutUnit unit = cuda::find_cut_unit(params.work, params.parts, part, lane == 1, 0, Rows);
      cut.unit[lane] = unit;
      if (unit.num_rows > 0) {
        num_splits_ = unit.num_splits;
        roll_ = cuda::RollCall(params.partials.gates + unit.first_part);
      }
    }
    __syncwarp();
  }

  // Where the rows of cut units go.
  template <class Element>
  __device__ __forceinline__ void find_places(RolledUnits<Rows>& cut, const DecodeParams& params) const {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int u = 0; u < 2; ++u) {
      if (lane >= cut.unit[u].num_rows) continue;
      const cuda::RowPlace<Element> place = cuda::place_of_row<Element>(params, cut.unit[u], lane);
      cut.out[u][lane] = place.out, cut.lse[u][lane] = place.lse;
    }
  }

  // The kernel before must have finished.
  __device__ __forceinline__ void open(RolledUnits<Rows>& cut, const DecodeParams& params) {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int u = 0; u < 2; ++u) {
      if (cut.unit[u].num_rows > 0) make_blank(params, cut.unit[u]);
    }
    __syncwarp();
    if (lane == 0) cut.partials_blank.arrive();
    if (num_splits_ > 0) roll_.open(params.launch_tag, num_splits_);
    __syncwarp();
  }

  // Learns the shares.
  __device__ __forceinline__ void call(RolledUnits<Rows>& cut) {
    using State = cuda::RollCall::State;
    const int lane = threadIdx.x % 32;
    const bool is_cut = num_splits_ > 0;
    State state = is_cut ? roll_.look(num_splits_) : State::all_started;
    std::uint32_t began = now();
#pragma unroll 1
    while (__any_sync(kAllLanes, state == State::waiting)) {
      if (!cut.partials_written.completed(0)) began = now();
      const bool impatient = now() - began > kPatienceCycles;
      if (state == State::waiting) state = impatient ? roll_.close(num_splits_) : roll_.look(num_splits_);
    }
    cuda::Shares shares;
    if (is_cut) shares = {cut.unit[lane].split, cut.unit[lane].split};
    if (__any_sync(kAllLanes, state == State::closed)) {
      cut.partials_written.wait(0);
      if (state == State::closed) {
        shares = roll_.publish(num_splits_) ? cuda::Shares{0, num_splits_ - 1} : cuda::Shares{};
      }
    }
    __syncwarp();
    if (lane < 2) cut.shares[lane] = shares;
    cut.roll_called.arrive();  // each lane has written something for those who merge
    if (is_cut) roll_.count();
  }

  // After the last look at the rolls.
  __device__ __forceinline__ void clear() {
    if (num_splits_ > 0) roll_.clear(num_splits_);
  }

 private:
  static constexpr std::uint32_t kPatienceCycles = 1 << 15;  // some 18 us

  static __device__ std::uint32_t now() { return static_cast<std::uint32_t>(clock()); }

  // By a warp.
  static __device__ __forceinline__ void make_blank(const DecodeParams& params, const cuda::CutUnit& unit) {
    const int lane = threadIdx.x % 32;
    const std::int64_t row = (unit.first_slot + unit.split) * static_cast<std::int64_t>(params.work.rows_per_unit);
    float* const values = params.partials.items_of(row) + 4 * lane;
#pragma unroll 4
    for (int i = 0; i < unit.num_rows * (kLatentDim / 128); ++i) ptx::store_relaxed(values + 128 * i, cuda::blanks());
    constexpr int kFactsOfRow = 2;  // vectors
    float* const facts = params.partials.facts_of(row) + 4 * lane;
    for (int i = lane; i < unit.num_rows * kFactsOfRow; i += 32)
      ptx::store_relaxed(facts + 4 * (i - lane), cuda::blanks());
  }

  cuda::RollCall roll_{nullptr};
  int num_splits_ = 0;  // 0: no roll
};

}  // namespace flash_mla::sm90::few_rows
