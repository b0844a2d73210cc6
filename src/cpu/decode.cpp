#include "cpu/decode.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <new>

#include "cpu/epilogue.h"
#include "cpu/problem_access.h"
#include "cpu/scratch_layout.h"
#include "cpu/worker.h"
#include "cpu/workspace.h"
#include "schedule/layout.h"
#include "schedule/work_of.h"

namespace flash_mla::cpu {
namespace {

// Behind partials:  unfinished units, one Tile per part | a workspace per worker
struct ExtraLayout {
  std::int32_t num_parts;
  WorkspaceLayout workspace;

  [[nodiscard]] std::int64_t workspaces_offset_bytes() const {
    return round_up(num_parts * static_cast<std::int64_t>(sizeof(Tile)), kScratchAlignmentBytes);
  }
  [[nodiscard]] std::int64_t bytes(int workers) const {
    return workspaces_offset_bytes() + workers * workspace.bytes();
  }
  [[nodiscard]] int workers_in(std::int64_t bytes) const {
    return static_cast<int>((bytes - workspaces_offset_bytes()) / workspace.bytes());
  }
};

// Remembers the first exception of a parallel region, out of which none may be thrown.
class ExceptionKeeper {
 public:
  template <class F>
  void guard(F f) noexcept {
    try {
      f();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!first_) first_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

// Calls run(worker, item) for items 0 .. n - 1; no worker takes two at once. A single worker needs no OpenMP.
template <class Run>
void for_each(int workers, std::int32_t n, Run run) {
  if (workers == 1) {
    for (std::int32_t item = 0; item < n; ++item) run(0, item);
    return;
  }
  ExceptionKeeper keeper;
#pragma omp parallel for num_threads(workers) schedule(dynamic, 1)
  for (std::int32_t item = 0; item < n; ++item) {
    keeper.guard([&] { run(omp_get_thread_num(), item); });
  }
  keeper.rethrow();
}

// One decode over its memories.
class Decode {
 public:
  Decode(const Plan& plan, const DecodeProblem& problem, const void* schedule_memory, char* scratch)
      : problem_(problem),
        work_(work_of(problem, plan.rows_per_unit())),
        type_(compute_type(problem.dtype)),
        num_parts_(plan.num_parts()),
        header_(*ScheduleLayout::header(schedule_memory)),
        parts_(ScheduleLayout::parts(schedule_memory)) {
    const ScratchLayout layout{plan.num_parts(), plan.rows_per_unit()};
    const std::int64_t extra_offset = layout.total_bytes();
    extra_ = {plan.num_parts(), workspace_layout(type_, plan.rows_per_unit())};
    partials_ = {ScratchLayout::partial_out(scratch), layout.partial_lse(scratch), plan.rows_per_unit()};
    unfinished_ = reinterpret_cast<Tile*>(scratch + extra_offset);
    workspaces_ = scratch + extra_offset + extra_.workspaces_offset_bytes();
    workers_ = std::clamp(extra_.workers_in(plan.scratch_bytes() - extra_offset), 1, omp_get_max_threads());
  }

  void run_parts() {
    const int workers = std::min(workers_, num_parts_);
    for_each(workers, num_parts_, [&](int worker, std::int32_t part) {
      const OneThread one_thread;
      Worker thread(problem_, work_, extra_.workspace, workspaces_ + worker * extra_.workspace.bytes(), partials_);
      ::new (&unfinished_[part]) Tile(thread.run_part(header_, parts_, part).value_or(Tile{}));
    });
  }

  // Row groups of the cut units are merged in parallel, each in split order.
  void merge_units() {
    if (header_.num_slots == 0) return;
    const std::int32_t groups = ceil_div(work_.rows_per_unit, kRowGranule);
    for_each(workers_, num_parts_ * groups, [&](int, std::int32_t item) {
      const Tile& tile = unfinished_[item / groups];
      const std::int32_t first = item % groups * kRowGranule;
      if (!tile.whole())
        merge_splits(problem_, work_, tile, first, min_of(first + kRowGranule, tile.num_rows), partials_);
    });
  }

 private:
  const DecodeProblem& problem_;
  Work work_;
  ComputeType type_;
  std::int32_t num_parts_;
  const ScheduleHeader& header_;
  const PartRecord* parts_;
  ExtraLayout extra_ = {};
  Partials partials_;
  Tile* unfinished_ = nullptr;
  char* workspaces_ = nullptr;
  int workers_ = 1;
};

}  // namespace

WorkspaceLayout workspace_layout(ComputeType type, int rows) {
  WorkspaceLayout layout{type, rows, 0, 0};
  for (int fewer = kRowGranule; fewer <= rows; fewer += kRowGranule) {  // fewer rows may be padded to more
    for (int blocks = 1; blocks <= kMaxChunkBlocks; ++blocks) {
      const TileProducts& products = tile_products({type, fewer, blocks});
      layout.packed_queries_bytes = max_of(layout.packed_queries_bytes, products.packed_queries_bytes());
      layout.scratch_bytes = max_of(layout.scratch_bytes, products.scratch_bytes());
    }
  }
  return layout;
}

std::int32_t choose_rows_per_unit(std::int64_t rows) {
  rows = std::max<std::int64_t>(rows, 1);
  const std::int64_t bundles = ceil_div(rows, std::int64_t{kMaxRows});
  return static_cast<std::int32_t>(round_up(ceil_div(rows, bundles), std::int64_t{kRowGranule}));
}

std::int64_t scratch_bytes(DType dtype, std::int32_t num_parts, std::int32_t rows_per_unit) {
  const ExtraLayout extra{num_parts, workspace_layout(compute_type(dtype), rows_per_unit)};
  return ScratchLayout{num_parts, rows_per_unit}.total_bytes() +
         extra.bytes(std::min(num_parts, omp_get_max_threads()));
}

void decode(const Plan& plan, const DecodeProblem& problem, const void* schedule_memory, void* scratch) {
  Decode run(plan, problem, schedule_memory, static_cast<char*>(scratch));
  run.run_parts();
  run.merge_units();
  write_padding_tokens(problem);
}

}  // namespace flash_mla::cpu
