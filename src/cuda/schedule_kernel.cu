// The scheduler on the device: one thread block runs the steps of src/schedule/partition.cpp in parallel.
//
//   survey     a thread per chunk of requests; prefix sums of modelled time over the chunks
//   decide     a thread per part: what it would get by each of the rules; a warp per piece length that is tried
//   cut        a thread per part; parts without work last, slots of partials: one prefix sum
//   number     a thread per part: the parts that share its first unit
//
// Every number comes from the functions that the host's loops call, and sums of integers do not depend on their order,
// so the bytes equal the host's. Shared memory does not grow with the batch: beyond 512 requests chunks get longer.
// Lengths are read with ordinary loads, since the kernel before may still be writing when this one is launched early.
// The kernel's time is latency: code that runs once and waits for the other warps.
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

constexpr int kMaxThreads = Chunks::kMost;
constexpr int kPartsPerWarp = kWarpLanes - 1;  // a lane finds its part's beginning, its neighbour the end
constexpr int kSharedRecords = 512;

struct ScheduleParams {
  Work work;
  Chunks chunks;
  CostModel cost;
  std::int32_t num_parts;
  void* memory;
};

struct Shared {
  WeightTable costs, pieces;
  PartRecord records[kSharedRecords];
  WorkTotals of_warp[kWarpLanes];
  BlockScratch<std::int64_t> sums;
  BlockScratch<std::int32_t> counts;
  std::int32_t tried[kWarpLanes];
  ShareTimes times;
};

class Scheduler {
 public:
  __device__ Scheduler(const ScheduleParams& params, Shared& shared)
      : work_(params.work),
        chunks_(params.chunks),
        cost_(params.cost),
        num_parts_(params.num_parts),
        parts_(ScheduleLayout::parts(params.memory)),
        // Records are read by threads that number others, so they are made in shared memory if they have room there.
        records_(params.num_parts < kSharedRecords ? shared.records : parts_),
        header_(ScheduleLayout::header(params.memory)),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        threads_(static_cast<int>(blockDim.x)) {}

  __device__ void run() {
    if (thread_ == 0) shared_.times = {};  // threads meet before these are added to
    survey();
    if (totals_.cost > 0) {
      decide_rule();
      FLASH_MLA_NO_UNROLL for (std::int32_t first = 0; first < num_parts_; first += parts_per_round()) cut(first);
    }
    number();
  }

 private:
  __device__ int lane() const { return thread_ % kWarpLanes; }
  __device__ int warp() const { return thread_ / kWarpLanes; }
  __device__ int warps() const { return threads_ / kWarpLanes; }
  __device__ std::int32_t parts_per_round() const { return warps() * kPartsPerWarp; }

  // Sum of term(request) over the requests of this thread's chunk.
  template <class T, class Term>
  __device__ T over_own_requests(Term term) const {
    const std::int32_t begin = thread_ * chunks_.size;
    T sum = {};
    FLASH_MLA_NO_UNROLL for (std::int32_t r = begin; r < min_of(begin + chunks_.size, work_.batch); ++r) term(r, &sum);
    return sum;
  }

  __device__ void survey() {
    const auto own =
        over_own_requests<WorkTotals>([&](std::int32_t r, WorkTotals* sum) { sum->add(totals_of(work_, cost_, r)); });
    const std::int64_t upto = warp_scan(own.cost);  // within the warp
    const auto reduce = [&](const WorkTotals& of_lane) {
      totals_.units = __reduce_add_sync(kAllLanes, static_cast<std::int32_t>(of_lane.units));
      totals_.max_blocks = __reduce_max_sync(kAllLanes, of_lane.max_blocks);
      totals_.lengths_hash = __reduce_add_sync(kAllLanes, of_lane.lengths_hash);
    };
    reduce(own);
    if (lane() == kWarpLanes - 1) totals_.cost = upto, shared_.of_warp[warp()] = totals_;
    __syncthreads();
    const WorkTotals of_warp = lane() < warps() ? shared_.of_warp[lane()] : WorkTotals{};
    reduce(of_warp);
    const std::int64_t warps_upto = warp_scan(of_warp.cost);
    totals_.cost = __shfl_sync(kAllLanes, warps_upto, kWarpLanes - 1);
    const std::int64_t lower_warps = __shfl_sync(kAllLanes, warps_upto - of_warp.cost, warp());
    place(lower_warps + upto - own.cost, totals_.cost, &shared_.costs);
  }

  // Writes this thread's entry of a table; then it may be read.
  __device__ void place(std::int64_t before, std::int64_t total, WeightTable* table) const {
    if (thread_ < chunks_.count) table->before[thread_] = before;
    if (thread_ == 0) table->before[chunks_.count] = total;
    __syncthreads();
  }

  // Fills the table of pieces.
  __device__ PieceCount count_pieces(PieceWeight weight) {
    const auto own = over_own_requests<std::int64_t>(
        [&](std::int32_t r, std::int64_t* sum) { *sum += RequestUnits(work_, r).total(PieceCounter{weight}); });
    const Scanned<std::int64_t> sums = block_scan(own, shared_.sums);
    const PieceCount total = PieceCounter::unpack(sums.total);
    place(PieceCounter::unpack(sums.before).pieces, total.pieces, &shared_.pieces);
    return total;
  }

  // The least piece length for which every piece finds a part; each warp tries one length at a time.
  __device__ PieceWeight shortest_pieces() {
    totals_.blocks = (totals_.cost - totals_.units * cost_.fixed) / cost_.per_block;
    std::int32_t low = least_piece_blocks(totals_, num_parts_), high = greatest_piece_blocks(totals_, num_parts_);
    FLASH_MLA_NO_UNROLL while (low < high) {
      const std::int32_t step = ceil_div(high - low, warps()), length = low + warp() * step;
      std::int32_t pieces = 0;
      if (length < high) {
        FLASH_MLA_NO_UNROLL for (std::int32_t r = lane(); r < work_.batch; r += kWarpLanes) {
          pieces += static_cast<std::int32_t>(RequestUnits(work_, r).total(PieceWeight{length}));
        }
        pieces = __reduce_add_sync(kAllLanes, pieces);
      }
      if (lane() == 0) shared_.tried[warp()] = pieces;
      __syncthreads();
      const bool fits = lane() >= warps() || shared_.tried[lane()] <= num_parts_;
      const std::int32_t first = __ffs(static_cast<int>(__ballot_sync(kAllLanes, fits))) - 1;  // -1: none fits
      const std::int32_t failed = first < 0 ? warps() : first;
      high = min_of(high, low + failed * step);
      low += failed > 0 ? (failed - 1) * step + 1 : 0;
      __syncthreads();  // the next round writes what was tried
    }
    return {low};
  }

  // The boundaries of the part of this thread in a round.
  __device__ void find_boundaries(std::int32_t first) {
    part_ = first + warp() * kPartsPerWarp + lane();
    begin_ = find_cut_point(work_, chunks_, cost_, shared_.costs, totals_.cost, part_, num_parts_);
    end_ = shuffle_words(begin_, [](std::uint32_t word) { return __shfl_down_sync(kAllLanes, word, 1); });
    if (lane() == kPartsPerWarp) part_ = num_parts_;  // nobody's
  }

  __device__ void time_shares(const StepClock& clock) {
    ShareTimes own;
    FLASH_MLA_NO_UNROLL for (std::int32_t first = 0; first < num_parts_; first += parts_per_round()) {
      find_boundaries(first);
      if (part_ >= num_parts_) continue;
#pragma unroll
      for (std::int32_t i = 0; i < SnapRule::kCount; ++i) {
        const SharePart between = part_between(cost_, begin_, end_, {i});
        own.longest[i] = max_of(own.longest[i], clock.part(between.time)), own.partials[i] += between.partials;
      }
    }
#pragma unroll
    for (std::int32_t i = 0; i < SnapRule::kCount; ++i) {
      const std::uint32_t longest = __reduce_max_sync(kAllLanes, own.longest[i]);
      const std::int32_t partials = __reduce_add_sync(kAllLanes, own.partials[i]);
      if (lane() == 0) atomicMax(&shared_.times.longest[i], longest), atomicAdd(&shared_.times.partials[i], partials);
    }
  }

  __device__ void decide_rule() {
    const StepClock clock(cost_, totals_.cost, num_parts_);
    time_shares(clock);
    PieceWeight shortest;
    PieceCount count;
    if (totals_.units <= num_parts_) {
      shortest = shortest_pieces();
      count = count_pieces(shortest);
    }
    __syncthreads();
    decision_ = decide(cost_, clock, totals_, num_parts_, shared_.times, shortest, count.partials);
    if (decision_.by_pieces && decision_.pieces.piece_blocks != shortest.piece_blocks) {
      count = count_pieces(decision_.pieces);
    }
    pieces_ = count.pieces;
  }

  // Writes the positions of a round's parts that get work behind the `used_` before them, and where their slots begin.
  __device__ void cut(std::int32_t first) {
    if (num_parts_ > parts_per_round()) find_boundaries(first);
    PartRecord record;
    std::int32_t partials = 0;
    bool works = part_ < num_parts_;
    if (decision_.by_pieces) {
      works = works && part_ < pieces_;
      if (works) record = record_before_piece(work_, chunks_, decision_.pieces, shared_.pieces, part_, &partials);
    } else if (works) {
      const SharePart between = part_between(cost_, begin_, end_, decision_.shares);
      works = between.time > 0;
      partials = between.partials;
      record = record_at(work_, begin_, between.begin);
    }
    const Scanned<std::int32_t> both = block_scan((works ? 1 : 0) + (partials << 16), shared_.counts);
    if (works) {
      record.first_slot = slots_ + (both.before >> 16);
      records_[used_ + (both.before & 0xffff)] = record;
    }
    used_ += both.total & 0xffff;
    slots_ += both.total >> 16;
  }

  __device__ void number() {
    __syncthreads();  // positions are written, which threads that number other parts read
    FLASH_MLA_NO_UNROLL for (std::int32_t part = thread_; part <= num_parts_; part += threads_) {
      if (part < used_) {
        number_part(records_, part, used_, records_[part].first_slot);
      } else {
        records_[part] = end_record(work_);
        number_part(records_, part, used_, slots_);
      }
      if (records_ != parts_) parts_[part] = records_[part];
    }
    if (thread_ == 0) *header_ = make_header(work_, totals_, num_parts_, slots_);
  }

  const Work& work_;
  const Chunks& chunks_;
  const CostModel cost_;
  const std::int32_t num_parts_;
  PartRecord* const parts_;
  PartRecord* const records_;
  ScheduleHeader* const header_;
  Shared& shared_;
  const int thread_, threads_;

  WorkTotals totals_;
  CutDecision decision_;
  std::int32_t pieces_ = 0;  // by which the units are cut, if they are
  std::int32_t part_ = 0;    // of this thread
  CutPoint begin_, end_;     // of that part
  std::int32_t used_ = 0;    // parts that have work
  std::int32_t slots_ = 0;
};

__global__ void __launch_bounds__(kMaxThreads, 1) make_schedule_kernel(const __grid_constant__ ScheduleParams params) {
  __shared__ Shared shared;
  Scheduler(params, shared).run();
}

}  // namespace

Status launch_schedule(const Plan& plan, const BatchView& batch, void* schedule_memory, cudaStream_t stream) noexcept {
  const PlanConfig& config = plan.config();
  ScheduleParams params = {work_of(batch, config.num_heads_q, config.num_heads_kv, config.causal, plan.rows_per_unit()),
                           Chunks::of(batch.batch),
                           CostModel{PlanAccess::cost_fixed(plan), PlanAccess::cost_block(plan),
                                     PlanAccess::cost_merge(plan), PlanAccess::cost_partial(plan)}
                               .sanitized(),
                           plan.num_parts(), schedule_memory};
  // A thread for each chunk of requests, and for each part as far as threads go.
  const std::int32_t part_warps = ceil_div(plan.num_parts(), kPartsPerWarp);
  const std::int32_t wanted = max_of(min_of(batch.batch, kMaxThreads), min_of(part_warps, kMaxThreads) * kWarpLanes);
  const std::int32_t threads = round_up(min_of(wanted, kMaxThreads), kWarpLanes);
  void* arguments[] = {&params};
  FLASH_MLA_CUDA_TRY(cudaLaunchKernel, reinterpret_cast<const void*>(&make_schedule_kernel), dim3(1),
                     dim3(static_cast<unsigned>(threads)), arguments, 0, stream);
  return {};
}

}  // namespace flash_mla::cuda
