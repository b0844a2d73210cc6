// The scheduler on the device: one thread block runs the steps of src/schedule/partition.cpp in parallel.
//
//   survey     a thread per chunk of requests; prefix sums of modelled time over the chunks; how many parts to use
//   decide     a thread per part and rule: what the part would get; piece lengths are tried by sixteen
//   cut        a thread per part; parts without work last, slots of partials: one prefix sum
//   number     a thread per part: the parts that share its first unit
//
// Every number comes from the functions that the host's loops call, and sums of integers do not depend on their order,
// so the bytes equal the host's. Shared memory does not grow with the batch: beyond 512 requests chunks get longer.
// The kernel's time is latency: code that runs once and waits for the other warps.
//
// It may be launched while the kernel before still runs, but waits before it reads or writes anything: lengths may be
// that kernel's, and it may be a decode that still reads the schedule. It lets no kernel begin early, so whatever comes
// behind it begins when all before it has finished as well.

#include <cstring>

#include "core/backend.h"
#include "cuda/block_scan.h"
#include "cuda/combine/merge_params.h"
#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/fence.h"
#include "cuda/runtime.h"
#include "cuda/schedule_kernel.h"
#include "schedule/cuts.h"
#include "schedule/layout.h"
#include "schedule/number_splits.h"
#include "schedule/work_of.h"

namespace flash_mla::cuda {
namespace {

constexpr int kMaxThreads = 768;
static_assert(kMaxThreads >= Chunks::kMost);
constexpr int kPartsPerWarp = kWarpLanes - 1;  // a lane finds its part's beginning, its neighbour the end
constexpr int kLengthsAtOnce = 16;             // piece lengths that are tried

struct ScheduleParams {
  UnitWork work;
  Chunks chunks;
  CostWeight weight;
  Divisor all_parts, half_parts;  // those that parts_to_use chooses from
  std::int32_t part_warps;        // that take a part each per lane
  std::int32_t set_bits;          // 1 << set_bits sets of as many share the rules, 4 at most; warps behind these hash
  std::int32_t shape_hash;
  void* memory;
};

// What those that number other parts read of a part's record, and where its slots begin.
struct alignas(16) Position {
  std::int32_t request, sub, block, first_slot;
};

struct Shared {
  WeightTable costs, pieces;
  Position positions[kMostParts];
  WorkTotals of_warp[kWarpLanes];
  BlockScratch<std::int64_t> sums;
  std::int32_t counts_of_warp[kWarpLanes];
  std::int32_t tried[kLengthsAtOnce];
  ShareTimes times;
  std::uint32_t lengths_hash;
};

class Scheduler {
 public:
  __device__ Scheduler(const ScheduleParams& params, Shared& shared)
      : work_(params.work),
        chunks_(params.chunks),
        weight_(params.weight),
        cost_(params.weight.cost),
        all_parts_(params.all_parts),
        half_parts_(params.half_parts),
        num_parts_(params.all_parts.value()),
        parts_to_use_(num_parts_),
        parts_(ScheduleLayout::parts(params.memory)),
        header_(ScheduleLayout::header(params.memory)),
        shape_hash_(params.shape_hash),
        part_warps_(params.part_warps),
        set_bits_(params.set_bits),
        rule_warps_(part_warps_ << set_bits_),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        threads_(static_cast<int>(blockDim.x)),
        set_(warp() & ((1 << set_bits_) - 1)) {}

  __device__ void run() {
    if (thread_ == 0) shared_.times = {}, shared_.lengths_hash = 0;  // threads meet before these are added to
    if (thread_ < kLengthsAtOnce) shared_.tried[thread_] = 0;
    ptx::wait_for_prerequisites();
    survey();
    hash_lengths();
    if (totals_.cost > 0) {
      decide_rule();
      FLASH_MLA_NO_UNROLL for (std::int32_t first = 0; first < parts_to_use_; first += parts_per_round()) cut(first);
    } else {
      __syncthreads();
    }
    number();
    ptx::fence_device();  // a decode kernel may read it before it waits
  }

 private:
  __device__ int lane() const { return thread_ % kWarpLanes; }
  __device__ int warp() const { return thread_ / kWarpLanes; }
  __device__ int warps() const { return threads_ / kWarpLanes; }
  __device__ std::int32_t parts_per_round() const { return part_warps_ * kPartsPerWarp; }

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
    };
    reduce(own);
    if (lane() == kWarpLanes - 1) totals_.cost = upto, shared_.of_warp[warp()] = totals_;
    __syncthreads();
    const WorkTotals of_warp = lane() < warps() ? shared_.of_warp[lane()] : WorkTotals{};
    reduce(of_warp);
    totals_.cost = warp_sum(of_warp.cost);
    const std::int64_t lower_warps = warp_sum(lane() < warp() ? of_warp.cost : 0);
    if (totals_.units <= num_parts_) {  // else nothing depends on them
      totals_.blocks = static_cast<std::int64_t>(
          weight_.per_block.long_quotient(static_cast<std::uint64_t>(totals_.cost - totals_.units * cost_.fixed)));
    }
    parts_to_use_ = parts_to_use(cost_, totals_, num_parts_);
    shares_ = EqualShares(totals_.cost, parts_to_use_ < num_parts_ ? half_parts_ : all_parts_);
    place(lower_warps + upto - own.cost, totals_.cost, &shared_.costs);
  }

  // By warps that have no part to find, if there are any.
  __device__ void hash_lengths() const {
    const std::int32_t first = rule_warps_ < warps() ? rule_warps_ * kWarpLanes : 0;
    if (thread_ < first) return;
    std::uint32_t sum = 0;
    FLASH_MLA_NO_UNROLL for (std::int32_t r = thread_ - first; r < work_.batch; r += threads_ - first) {
      sum += lengths_hash_of_request(work_, r);
    }
    sum = __reduce_add_sync(kAllLanes, sum);
    if (lane() == 0) atomicAdd(&shared_.lengths_hash, sum);
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

  // The least piece length for which every piece finds a part.
  __device__ PieceWeight shortest_pieces() {
    std::int32_t low = least_piece_blocks(totals_, parts_to_use_), high = greatest_piece_blocks(totals_, parts_to_use_);
    FLASH_MLA_NO_UNROLL while (low < high) {
      const std::int32_t step = ceil_div(high - low, kLengthsAtOnce);
      try_lengths(low, step);
      __syncthreads();
      const bool fits = lane() >= kLengthsAtOnce || shared_.tried[lane() % kLengthsAtOnce] <= parts_to_use_;
      const std::int32_t failed = __ffs(static_cast<int>(__ballot_sync(kAllLanes, fits))) - 1;
      high = min_of(high, low + failed * step);
      low += failed > 0 ? (failed - 1) * step + 1 : 0;
      __syncthreads();
      if (thread_ < kLengthsAtOnce) shared_.tried[thread_] = 0;
      __syncthreads();
    }
    return {low};
  }

  // Counts the pieces of lengths low, low + step ...
  __device__ void try_lengths(std::int32_t low, std::int32_t step) const {
    const std::int32_t begin = thread_ * chunks_.size, end = min_of(begin + chunks_.size, work_.batch);
    FLASH_MLA_NO_UNROLL for (std::int32_t r = begin; __any_sync(kAllLanes, r < end); ++r) {
      const RequestUnits units = r < end ? RequestUnits(work_, r) : RequestUnits();
#pragma unroll 4
      for (std::int32_t i = 0; i < kLengthsAtOnce; ++i) {
        const auto pieces = static_cast<std::int32_t>(units.total(PieceWeight{low + i * step}));
        const std::int32_t sum = __reduce_add_sync(kAllLanes, pieces);
        if (lane() == 0) atomicAdd(&shared_.tried[i], sum);
      }
    }
  }

  // The part of this thread in a round, where its share begins, and whether the next lane's begins in the same unit.
  __device__ void find_boundary(std::int32_t first) {
    part_ = first + (warp() >> set_bits_) * kPartsPerWarp + lane();
    begin_ = find_cut_point(work_, chunks_, weight_, shared_.costs, shares_, part_);
    one_unit_ = __shfl_down_sync(kAllLanes, begin_.before, 1) == begin_.before;
    if (lane() == kPartsPerWarp) part_ = parts_to_use_;  // nobody's
    shared_by_ = SnapRule::kCount;
  }

  // What the part gets by a rule: up to the cut that the next lane finds.
  __device__ void share_by(SnapRule rule) {
    cut_ = snapped(cost_, begin_, rule);
    Cut end;
    end.cost = __shfl_down_sync(kAllLanes, cut_.cost, 1);
    end.inside = __shfl_down_sync(kAllLanes, cut_.inside ? 1 : 0, 1) != 0;
    share_ = part_ < parts_to_use_ ? part_between(cost_, cut_, end, one_unit_) : SharePart{};
    shared_by_ = rule.index;
  }

  __device__ void time_shares(const StepClock& clock) {
    if (warp() >= rule_warps_) return;
    FLASH_MLA_NO_UNROLL for (std::int32_t first = 0; first < parts_to_use_; first += parts_per_round()) {
      find_boundary(first);
      FLASH_MLA_NO_UNROLL for (std::int32_t i = set_; i < SnapRule::kCount; i += 1 << set_bits_) {
        share_by({i});
        const std::uint32_t longest = __reduce_max_sync(kAllLanes, clock.part(share_.time));
        const std::int32_t partials = __reduce_add_sync(kAllLanes, share_.partials);
        if (lane() == 0) {
          atomicMax(&shared_.times.longest[i], longest);
          atomicAdd(&shared_.times.partials[i], partials);
        }
      }
    }
  }

  __device__ void decide_rule() {
    const StepClock clock(cost_, totals_.cost, num_parts_);
    time_shares(clock);
    __syncthreads();
    decision_ = decide_shares(clock, shared_.times);
    if (totals_.units > parts_to_use_) return;
    consider_uncut(cost_, clock, totals_, &decision_);
    const PieceWeight pieces = worthwhile_pieces(cost_, totals_, num_parts_, shortest_pieces());
    std::int32_t counted = 0;  // length whose pieces the table has
    if (consider_pieces(cost_, clock, totals_, pieces, 0, &decision_)) {
      const PieceCount count = count_pieces(pieces);
      pieces_ = count.pieces, counted = pieces.piece_blocks;
      consider_pieces(cost_, clock, totals_, pieces, count.partials, &decision_);
    }
    if (decision_.by_pieces && decision_.pieces.piece_blocks != counted) {
      pieces_ = count_pieces(decision_.pieces).pieces;
    }
  }

  // Writes the positions of a round's parts that get work behind the `used_` before them, and where their slots begin:
  // one set of warps, the one that has timed the rule.
  __device__ void cut(std::int32_t first) {
    PartRecord record;
    std::int32_t partials = 0;
    bool works = false;
    const std::int32_t rule = decision_.shares.index, set = decision_.by_pieces ? 0 : rule & ((1 << set_bits_) - 1);
    if (warp() < rule_warps_ && set_ == set) {
      if (parts_to_use_ > parts_per_round()) find_boundary(first);
      if (decision_.by_pieces) {
        works = part_ < pieces_;
        if (works) record = record_before_piece(work_, chunks_, decision_.pieces, shared_.pieces, part_, &partials);
      } else {
        if (shared_by_ != rule) share_by(decision_.shares);
        works = share_.time > 0, partials = share_.partials;
        record = record_at(begin_, cut_);
      }
    }
    add_positions(works, partials, record);
  }

  // Writes the positions of a round's parts that get work behind those of earlier rounds.
  __device__ void add_positions(bool works, std::int32_t partials, const PartRecord& record) {
    const unsigned working = __ballot_sync(kAllLanes, works), lower = (1u << lane()) - 1;
    const unsigned one = __ballot_sync(kAllLanes, partials > 0), two = __ballot_sync(kAllLanes, partials > 1);
    const auto packed = [&](unsigned lanes) {
      return __popc(working & lanes) + ((__popc(one & lanes) + __popc(two & lanes)) << 16);
    };
    if (lane() == 0) shared_.counts_of_warp[warp()] = packed(kAllLanes);
    __syncthreads();
    const std::int32_t of_warp = lane() < warps() ? shared_.counts_of_warp[lane()] : 0;
    const std::int32_t before = __reduce_add_sync(kAllLanes, lane() < warp() ? of_warp : 0) + packed(lower);
    const std::int32_t total = __reduce_add_sync(kAllLanes, of_warp);
    if (works) {
      shared_.positions[used_ + (before & 0xffff)] = {record.request, record.sub, record.block,
                                                      slots_ + (before >> 16)};
    }
    used_ += total & 0xffff;
    slots_ += total >> 16;
    __syncthreads();  // positions are written, which threads that number others read; the next round may count
  }

  __device__ void number() {
    if (thread_ == threads_ - 1) {  // of a warp that has no part, unless there are many
      totals_.lengths_hash = shared_.lengths_hash;
      store(make_header(shape_hash_, work_.batch, totals_, num_parts_, slots_), header_);
    }
    FLASH_MLA_NO_UNROLL for (std::int32_t part = thread_; part <= num_parts_; part += threads_) {
      PartRecord record = end_record(work_);
      record.first_slot = slots_, record.head_first_part = record.head_last_part = part;
      if (part < used_) record = numbered(shared_.positions, part, used_, shared_.positions[part].first_slot);
      store(record, parts_ + part);
    }
  }

  // In 16 bytes at a time, to which schedule memory is aligned.
  template <class T>
  __device__ static void store(const T& value, T* to) {
    int4 halves[2];
    static_assert(sizeof halves == sizeof value);
    std::memcpy(halves, &value, sizeof value);
    reinterpret_cast<int4*>(to)[0] = halves[0];
    reinterpret_cast<int4*>(to)[1] = halves[1];
  }

  const UnitWork& work_;
  const Chunks& chunks_;
  const CostWeight& weight_;
  const CostModel cost_;
  const Divisor &all_parts_, &half_parts_;
  const std::int32_t num_parts_;
  std::int32_t parts_to_use_;
  PartRecord* const parts_;
  ScheduleHeader* const header_;
  const std::int32_t shape_hash_;
  const std::int32_t part_warps_, set_bits_, rule_warps_;
  Shared& shared_;
  const int thread_, threads_;
  const int set_;  // of warps; neighbours are in different ones

  WorkTotals totals_;
  EqualShares shares_;  // of the total cost
  CutDecision decision_;
  std::int32_t pieces_ = 0;                    // by which the units are cut, if they are
  std::int32_t part_ = 0;                      // of this thread
  CutPoint begin_;                             // of that part
  bool one_unit_ = false;                      // the next part begins in the same one
  std::int32_t shared_by_ = SnapRule::kCount;  // rule by which the following say what the part gets
  Cut cut_;
  SharePart share_;
  std::int32_t used_ = 0;  // parts that have work
  std::int32_t slots_ = 0;
};

__global__ void __launch_bounds__(kMaxThreads, 1) make_schedule_kernel(const __grid_constant__ ScheduleParams params) {
  __shared__ Shared shared;
  Scheduler(params, shared).run();
}

}  // namespace

Status launch_schedule(const Plan& plan, const BatchView& batch, void* schedule_memory, cudaStream_t stream) noexcept {
  const PlanConfig& shape = plan.config();
  ScheduleParams params{.work =
                            work_of(batch, shape.num_heads_q, shape.num_heads_kv, shape.causal, plan.rows_per_unit())};
  params.chunks = Chunks::of(batch.batch);
  params.weight =
      CostWeight{CostModel{PlanAccess::cost_fixed(plan), PlanAccess::cost_block(plan), PlanAccess::cost_merge(plan),
                           PlanAccess::cost_partial(plan), PlanAccess::few_blocks(plan)}
                     .sanitized()};
  params.all_parts = Divisor(static_cast<std::uint32_t>(plan.num_parts()));
  params.half_parts = Divisor(static_cast<std::uint32_t>(half_of_parts(plan.num_parts())));
  params.shape_hash = shape_hash(params.work);
  params.memory = schedule_memory;
  // A thread for each chunk of requests; a lane for each part and rule, and warps that hash four requests a lane
  // meanwhile, as far as threads go.
  constexpr std::int32_t kMaxWarps = kMaxThreads / kWarpLanes;
  params.part_warps = min_of(ceil_div(plan.num_parts(), kPartsPerWarp), kMaxWarps);
  params.set_bits = 4 * params.part_warps <= kMaxWarps ? 2 : 2 * params.part_warps <= kMaxWarps ? 1 : 0;
  const std::int32_t hash_warps = ceil_div(batch.batch, 4 * kWarpLanes);
  const std::int32_t chunk_warps = ceil_div(params.chunks.count, kWarpLanes);
  const std::int32_t warps =
      max_of(chunk_warps, min_of((params.part_warps << params.set_bits) + hash_warps, kMaxWarps));
  const std::int32_t threads = warps * kWarpLanes;
  void* arguments[] = {&params};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = 1;
  FLASH_MLA_CUDA_TRY(cudaLaunchKernelExC, &config, reinterpret_cast<const void*>(&make_schedule_kernel), arguments);
  return {};
}

}  // namespace flash_mla::cuda
