// Merges the units that part boundaries cut, each row over the unit's splits i in their order:
//
//   lse = ln sum_i exp(lse_i)      out = sum_i exp(lse_i - lse) o_i
//
// The work is dealt as the partials were: the k parts that share a unit take every k-th of its rows, so whatever k is,
// each part reads as much as it wrote, and no list of units is needed. A part has at most two cut units: the one it
// found begun and the one it left unfinished. A thread block takes 128 columns of such a share, so that all thread
// blocks fit the GPU at once. Its warps take a row each; where there are fewer rows than warps (many splits, few rows),
// several warps share a row's splits.
#include "core/row_packing.h"
#include "cuda/combine/combine.h"
#include "cuda/combine/warp_merge.h"
#include "cuda/ptx/dependent_launch.h"
#include "cuda/runtime.h"
#include "cuda/work_of.h"
#include "flash_mla/plan.h"
#include "schedule/layout.h"
#include "schedule/number_splits.h"

namespace flash_mla::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kColumns = kWarpLanes * 4;  // of a thread block
constexpr int kColumnGroups = kLatentDim / kColumns;
constexpr int kBlocksPerMultiprocessor = 4;  // then all run at once
constexpr int kRowsPerBlock = 64;            // thread blocks for each 64 rows of a unit

struct CombineParams {
  Work work;
  const PartRecord* parts;
  const float* partial_out;  // [slots, rows_per_unit, 512]
  const float* partial_lse;  // [slots, rows_per_unit]
  RowsView out, lse;
};

// The cut unit that a part found begun (`tail` false) or left unfinished.
struct CutUnit {
  std::int32_t request = 0, kv_head = 0, first_row = 0;
  std::int32_t num_rows = 0;    // 0: there is no such unit
  std::int32_t first_slot = 0;  // of its splits
  std::int32_t num_splits = 0;
  std::int32_t split = 0;  // the part's own
};

__device__ CutUnit find_cut_unit(const Work& work, const PartRecord* parts, std::int32_t part, bool tail) {
  const PartRecord &own = parts[part], &next = parts[part + 1];
  const PartRecord& at = tail ? next : own;
  CutUnit unit;
  if (at.block == 0 || (tail && own.block > 0 && same_unit(own, next))) return unit;
  // Lengths may have changed since schedule: nothing out of bounds, whatever the values.
  if (at.request >= work.batch || at.sub >= work.subs(at.request)) return unit;
  const std::int32_t bundles = work.bundles(at.request), bundle = at.sub % bundles;
  unit.request = at.request;
  unit.kv_head = at.sub / bundles;
  unit.first_row = bundle * work.rows_per_unit;
  unit.num_rows = min_of(work.rows(at.request) - unit.first_row, work.rows_per_unit);
  unit.num_splits = at.head_last_part - at.head_first_part + 1;
  unit.split = part - at.head_first_part;
  unit.first_slot = own.first_slot + (tail && own.block > 0 ? 1 : 0) - unit.split;
  return unit;
}

// The result of one row and 128 columns, four a lane.
template <class Element>
__device__ void store_row(const CombineParams& params, const CutUnit& unit, int row, int column, float4 out,
                          float lse) {
  const QueryHead at = unpack_row(unit.first_row + row, unit.kv_head, params.work.heads_per_kv);
  const std::int64_t token = params.work.first_query(unit.request) + at.query;
  const auto offset = [&](const RowsView& view) {
    return unit.request * view.batch_stride + token * view.token_stride + at.head * view.head_stride;
  };
  store4(static_cast<Element*>(params.out.data) + offset(params.out) + column, out);
  if (column == 0 && params.lse.data != nullptr) {
    static_cast<float*>(params.lse.data)[offset(params.lse)] = lse_for_api(lse);
  }
}

// Adds the sums of the warps that share a row, in order, for the first of them. All threads call.
__device__ void add_warps(float4 (&sums)[kWarps][kWarpLanes], int warps_per_row, float4* sum) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  sums[warp][lane] = *sum;
  __syncthreads();
  if (warp % warps_per_row != 0) return;
  for (int other = warp + 1; other < warp + warps_per_row; ++other) {
    const float4 more = sums[other][lane];
    sum->x += more.x, sum->y += more.y, sum->z += more.z, sum->w += more.w;
  }
}

// Without a run-time index into memory.
__device__ CutUnit choose(bool first, const CutUnit& a, const CutUnit& b) {
  CutUnit unit;
  unit.request = first ? a.request : b.request;
  unit.kv_head = first ? a.kv_head : b.kv_head;
  unit.first_row = first ? a.first_row : b.first_row;
  unit.first_slot = first ? a.first_slot : b.first_slot;
  unit.num_splits = first ? a.num_splits : b.num_splits;
  return unit;
}

// The rows of a cut unit that fall to a thread block: first, first + stride, ...
struct RowShare {
  std::int32_t first = 0, stride = 1, count = 0;
};

__device__ RowShare share_of(const CutUnit& unit, int group, int groups) {
  RowShare share;
  share.first = unit.split * groups + group;
  share.stride = unit.num_splits * groups;
  if (share.first < unit.num_rows) share.count = ceil_div(unit.num_rows - share.first, share.stride);
  return share;
}

// sum = of exp(lse_i - lse) o_i over splits begin .. end - 1 of a row; returns the lse of all its splits. The first
// partials are on their way while the lse are: what lies in scratch may be read, whatever it holds.
__device__ MergedLse merge_row(const CombineParams& params, const CutUnit& unit, int row, int column, int begin,
                               int end, float4* sum) {
  constexpr int kInFlight = 4;
  const std::int64_t rows_per_unit = params.work.rows_per_unit, first = unit.first_slot * rows_per_unit + row;
  const auto lse_of = [&](int split) { return params.partial_lse[first + split * rows_per_unit]; };
  float4 o[kInFlight];
  const auto load = [&](int from) {
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int split = min_of(from + i, end - 1);
      o[i] = load4(params.partial_out + (first + split * rows_per_unit) * kLatentDim + column);
    }
  };
  if (begin < end) load(begin);
  const MergedLse merged = warp_merge_lse(unit.num_splits, lse_of);
  for (int from = begin; from < end; from += kInFlight) {
    if (from > begin) load(from);
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const float factor = from + i < end ? merged.factor(lse_of(from + i)) : 0.0f;
      if (factor == 0.0f) continue;  // an empty partial may hold anything
      sum->x += factor * o[i].x, sum->y += factor * o[i].y;
      sum->z += factor * o[i].z, sum->w += factor * o[i].w;
    }
  }
  return merged;
}

template <class Element>
__global__ void __launch_bounds__(kWarps* kWarpLanes, kBlocksPerMultiprocessor)
    combine(const __grid_constant__ CombineParams params) {
  __shared__ float4 sums[kWarps][kWarpLanes];
  // The schedule and the lengths are older than the decode kernel, the partials are not.
  const auto part = static_cast<std::int32_t>(blockIdx.x);
  const CutUnit begun = find_cut_unit(params.work, params.parts, part, false);
  const CutUnit left = find_cut_unit(params.work, params.parts, part, true);
  ptx::launch_dependents();
  ptx::wait_for_prerequisites();

  const int groups = static_cast<int>(gridDim.y) / kColumnGroups;  // thread blocks that share the part's rows
  const int group = static_cast<int>(blockIdx.y) / kColumnGroups;
  const RowShare of_begun = share_of(begun, group, groups), of_left = share_of(left, group, groups);
  const int rows = of_begun.count + of_left.count;
  if (rows == 0) return;
  int warps_per_row = 1;
  while (2 * warps_per_row * rows <= kWarps) warps_per_row *= 2;

  // Several warps a row: all rows are in flight at once, so the loop runs once.
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int column = static_cast<int>(blockIdx.y) % kColumnGroups * kColumns + lane * 4;
  const int slot = warp / warps_per_row, rows_at_once = kWarps / warps_per_row;
  for (int i = slot; i < rows + slot; i += rows_at_once) {
    const bool is_left = i >= of_begun.count;
    const CutUnit unit = choose(is_left, left, begun);
    const int row =
        is_left ? of_left.first + (i - of_begun.count) * of_left.stride : of_begun.first + i * of_begun.stride;
    const int splits = ceil_div(unit.num_splits, warps_per_row), begin = warp % warps_per_row * splits;
    MergedLse merged;
    float4 sum = {};
    if (i < rows) merged = merge_row(params, unit, row, column, begin, min_of(begin + splits, unit.num_splits), &sum);
    if (warps_per_row > 1) add_warps(sums, warps_per_row, &sum);
    if (i < rows && warp % warps_per_row == 0) store_row<Element>(params, unit, row, column, sum, merged.lse());
  }
}

}  // namespace

Status launch_combine(const DecodeProblem& problem, std::int32_t num_parts, std::int32_t rows_per_unit,
                      const void* schedule_memory, void* scratch, cudaStream_t stream) noexcept {
  if (num_parts < 2) return {};
  CombineParams params = {work_of(problem, rows_per_unit),
                          ScheduleLayout::parts(schedule_memory),
                          ScratchLayout::partial_out(scratch),
                          ScratchLayout{num_parts, rows_per_unit}.partial_lse(scratch),
                          problem.out,
                          problem.lse};
  const std::int64_t heads = problem.num_heads_q / problem.num_heads_kv;
  const std::int64_t rows = min_of<std::int64_t>(rows_per_unit, problem.batch.seqlen_q * heads);
  const std::int64_t groups = max_of<std::int64_t>(ceil_div<std::int64_t>(rows, kRowsPerBlock), 1) * kColumnGroups;
  const void* kernel = problem.dtype == DType::bf16 ? reinterpret_cast<const void*>(&combine<__nv_bfloat16>)
                                                    : reinterpret_cast<const void*>(&combine<__half>);
  cudaLaunchAttribute early = {};  // begins under the decode kernel's tail
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(num_parts), static_cast<unsigned>(groups));
  config.blockDim = dim3(kWarps * kWarpLanes);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  void* arguments[] = {&params};
  FLASH_MLA_CUDA_TRY(cudaLaunchKernelExC, &config, kernel, arguments);
  return {};
}

}  // namespace flash_mla::cuda
