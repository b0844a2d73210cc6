// The scheduler on the device: one thread block runs the steps of src/schedule/partition.cpp in parallel.
//
//   survey     a thread per chunk of requests; prefix sums of modelled time over the chunks
//   decide     a thread per cut, for both rules of equal shares; pieces by bisection, each count a reduction
//   cut        a thread per part; parts without work last, by a prefix sum
//   number     a thread per part; slots by a prefix sum
//
// Every number comes from the functions that the host's loops call, and sums of integers do not depend on their order,
// so the bytes equal the host's. Shared memory does not grow with the batch: beyond 512 requests chunks get longer.
// Lengths are read with ordinary loads, since the kernel before may still be writing when this one is launched early.
#include "core/backend.h"
#include "cuda/block_scan.h"
#include "cuda/runtime.h"
#include "cuda/schedule_kernel.h"
#include "schedule/cuts.h"
#include "schedule/layout.h"
#include "schedule/number_splits.h"
#include "schedule/work_of.h"

namespace flash_mla::cuda {
namespace {

constexpr int kMaxThreads = WeightTable::kMaxChunks;

struct ScheduleParams {
  Work work;
  CostModel cost;
  std::int32_t num_parts;
  void* memory;
};

// The longest part by each rule of equal shares, and whether `fine` cuts a unit.
struct ShareTimes {
  std::int64_t whole = 0;
  std::int64_t fine = 0;
  std::int64_t fine_cuts = 0;
};

__device__ ShareTimes longest_of(ShareTimes a, const ShareTimes& b) {
  return {max_of(a.whole, b.whole), max_of(a.fine, b.fine), a.fine_cuts + b.fine_cuts};
}

struct Shared {
  WeightTable costs, pieces;
  ShareCuts cuts[kMaxThreads];  // neighbouring cuts of one round
  BlockScratch<WorkTotals> totals;
  BlockScratch<ShareTimes> times;
  BlockScratch<std::int64_t> sums;
  BlockScratch<std::int32_t> counts;
};

class Scheduler {
 public:
  __device__ Scheduler(const ScheduleParams& params, Shared& shared)
      : work_(params.work),
        cost_(params.cost),
        num_parts_(params.num_parts),
        parts_(ScheduleLayout::parts(params.memory)),
        header_(ScheduleLayout::header(params.memory)),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        threads_(static_cast<int>(blockDim.x)) {}

  __device__ void run() {
    const WorkTotals totals = survey();
    std::int32_t used = 0;
    if (totals.cost > 0) {
      const CutDecision decision = cut_shares(totals, &used);
      if (decision.rule == CutRule::pieces) used = cut_pieces(decision.piece);
    }
    number(totals, used);
  }

 private:
  // Sum of term(request) over the requests of this thread's chunk.
  template <class T, class Term>
  __device__ T over_own_requests(Term term) const {
    const std::int32_t chunk = WeightTable::chunk_of(work_.batch);
    const std::int32_t begin = min_of(thread_, WeightTable::chunks_of(work_.batch)) * chunk;
    T sum = {};
    FLASH_MLA_NO_UNROLL for (std::int32_t r = begin; r < min_of(begin + chunk, work_.batch); ++r) term(r, &sum);
    return sum;
  }

  // Returns the total.
  __device__ std::int64_t fill(std::int64_t own_weight, WeightTable* table) {
    const Scanned<std::int64_t> sums = block_scan(own_weight, shared_.sums);
    const std::int32_t chunks = WeightTable::chunks_of(work_.batch);
    if (thread_ < chunks) table->before[thread_] = sums.before;
    if (thread_ == 0) table->before[chunks] = sums.total;
    __syncthreads();
    return sums.total;
  }

  __device__ WorkTotals survey() {
    const auto own =
        over_own_requests<WorkTotals>([&](std::int32_t r, WorkTotals* sum) { sum->add(totals_of(work_, cost_, r)); });
    fill(own.cost, &shared_.costs);
    const auto add = [](WorkTotals a, const WorkTotals& b) {
      a.add(b);
      return a;
    };
    return block_reduce(own, add, shared_.totals);
  }

  __device__ std::int64_t own_pieces(PieceWeight weight) const {
    return over_own_requests<std::int64_t>(
        [&](std::int32_t r, std::int64_t* sum) { *sum += RequestUnits(work_, r).total(weight); });
  }

  __device__ PieceWeight shortest_pieces(const WorkTotals& totals) {
    std::int32_t low = least_piece_blocks(totals, num_parts_), high = greatest_piece_blocks(totals, num_parts_);
    const auto add = [](std::int64_t a, std::int64_t b) { return a + b; };
    FLASH_MLA_NO_UNROLL while (low < high) {
      const std::int32_t middle = low + (high - low) / 2;
      if (block_reduce(own_pieces({middle}), add, shared_.sums) <= num_parts_) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return {low};
  }

  // The rules of equal shares. First their times are taken, then, if one of them is chosen, its cuts are written; the
  // search for the cuts is in the code once, since fetching instructions is much of what this kernel costs.
  __device__ CutDecision cut_shares(const WorkTotals& totals, std::int32_t* used) {
    const PieceWeight shortest = totals.units <= num_parts_ ? shortest_pieces(totals) : PieceWeight{};
    const std::int32_t parts_per_round = threads_ - 1;  // each thread finds the next part's cut beside its own
    ShareTimes times;
    CutDecision decision;
    FLASH_MLA_NO_UNROLL for (int pass = 0; pass < 2; ++pass) {
      const bool decided = pass == 1;
      FLASH_MLA_NO_UNROLL for (std::int32_t first = 0; first < num_parts_; first += parts_per_round) {
        const std::int32_t part = first + thread_;
        if (part <= num_parts_ && (!decided || num_parts_ > parts_per_round)) {
          shared_.cuts[thread_] = cuts_before_share(work_, cost_, shared_.costs, totals.cost, part, num_parts_);
        }
        __syncthreads();
        const bool has_part = thread_ < parts_per_round && part < num_parts_;
        if (decided) {
          write_parts(has_part, decision.rule, used);
        } else if (has_part) {
          time_part(&times);
        }
        __syncthreads();
      }
      if (decided) break;
      times = block_reduce(times, longest_of, shared_.times);
      const std::int64_t merge = times.fine_cuts > 0 ? cost_.merge : 0;
      decision = decide(cost_, totals, num_parts_, times.whole, times.fine + merge, shortest);
      if (decision.rule == CutRule::pieces) break;
    }
    return decision;
  }

  __device__ void time_part(ShareTimes* times) const {
    const ShareCuts &begin = shared_.cuts[thread_], &end = shared_.cuts[thread_ + 1];
    times->whole = max_of(times->whole, part_time(cost_, begin.whole, end.whole));
    times->fine = max_of(times->fine, part_time(cost_, begin.fine, end.fine));
    times->fine_cuts += end.fine.inside_unit() ? 1 : 0;
  }

  // Writes the positions of a round's parts that get work behind the `used` before them.
  __device__ void write_parts(bool has_part, CutRule rule, std::int32_t* used) {
    const auto cut = [&](int thread) -> const Cut& {
      return rule == CutRule::whole ? shared_.cuts[thread].whole : shared_.cuts[thread].fine;
    };
    const bool works = has_part && cut(thread_ + 1).cost > cut(thread_).cost;
    const Scanned<std::int32_t> working = block_scan(works ? 1 : 0, shared_.counts);
    if (works) parts_[*used + working.before] = record_at(cut(thread_));
    *used += working.total;
  }

  // Writes the positions of all parts that get a piece; returns how many these are.
  __device__ std::int32_t cut_pieces(PieceWeight weight) {
    const auto count = static_cast<std::int32_t>(fill(own_pieces(weight), &shared_.pieces));
    FLASH_MLA_NO_UNROLL for (std::int32_t i = thread_; i < count; i += threads_) {
      parts_[i] = record_at(cut_before_piece(work_, weight, shared_.pieces, i));
    }
    return count;
  }

  __device__ void number(const WorkTotals& totals, std::int32_t used) {
    FLASH_MLA_NO_UNROLL for (std::int32_t part = used + thread_; part <= num_parts_; part += threads_) {
      parts_[part] = record_at(end_cut(work_, 0));
    }
    __syncthreads();  // positions are written, which threads that number other parts read
    std::int32_t slots = 0;
    FLASH_MLA_NO_UNROLL for (std::int32_t first = 0; first <= num_parts_; first += threads_) {
      const std::int32_t part = first + thread_;
      const std::int32_t partials = part < num_parts_ ? partials_of(parts_, part) : 0;
      const Scanned<std::int32_t> slot = block_scan(partials, shared_.counts);
      if (part <= num_parts_) number_part(parts_, part, used, slots + slot.before);
      slots += slot.total;
    }
    if (thread_ == 0) *header_ = make_header(work_, totals, num_parts_, slots);
  }

  const Work& work_;
  const CostModel cost_;
  const std::int32_t num_parts_;
  PartRecord* parts_;
  ScheduleHeader* header_;
  Shared& shared_;
  const int thread_, threads_;
};

__global__ void __launch_bounds__(kMaxThreads, 1) make_schedule_kernel(const __grid_constant__ ScheduleParams params) {
  __shared__ Shared shared;
  Scheduler(params, shared).run();
}

}  // namespace

Status launch_schedule(const Plan& plan, const BatchView& batch, void* schedule_memory, cudaStream_t stream) noexcept {
  const PlanConfig& config = plan.config();
  ScheduleParams params = {
      work_of(batch, config.num_heads_q, config.num_heads_kv, config.causal, plan.rows_per_unit()),
      sanitized({PlanAccess::cost_fixed(plan), PlanAccess::cost_block(plan), PlanAccess::cost_merge(plan)}),
      plan.num_parts(), schedule_memory};
  // A thread for each chunk of requests, and for each cut as far as threads go.
  const std::int32_t wanted = max_of(batch.batch, plan.num_parts() + 1);
  const std::int32_t threads = round_up(min_of(wanted, kMaxThreads), kWarpLanes);
  void* arguments[] = {&params};
  FLASH_MLA_CUDA_TRY(cudaLaunchKernel, reinterpret_cast<const void*>(&make_schedule_kernel), dim3(1),
                     dim3(static_cast<unsigned>(threads)), arguments, 0, stream);
  return {};
}

}  // namespace flash_mla::cuda
