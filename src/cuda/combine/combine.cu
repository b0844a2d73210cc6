// Merges the units that part boundaries cut, each row over the unit's splits i in their order:
//
//   lse = ln sum_i exp(lse_i)      out = sum_i exp(lse_i - lse) o_i
//
// The work is dealt as the partials were: the k parts that share a unit take every k-th of its rows, so whatever k is,
// each part reads as much as it wrote, and no list of units is needed. A part has at most two cut units: the one it
// found begun and the one it left unfinished. A thread block takes 256 columns of such a share, so that all thread
// blocks fit the GPU at once. Its warps take a row each; where there are fewer rows than warps (many splits, few rows),
// several warps share a row's splits.
#include "core/row_packing.h"
#include "cuda/combine/combine.h"
#include "cuda/combine/warp_merge.h"
#include "cuda/ptx/dependent_launch.h"
#include "cuda/runtime.h"
#include "flash_mla/plan.h"
#include "schedule/layout.h"
#include "schedule/number_splits.h"
#include "schedule/work_of.h"

namespace flash_mla::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kVectors = 2;                          // of four columns a lane
constexpr int kColumns = kWarpLanes * 4 * kVectors;  // of a thread block
constexpr int kColumnGroups = kLatentDim / kColumns;
constexpr int kRowsPerBlock = 64;  // thread blocks for each 64 rows of a unit

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

// The result of one row; lane l has columns column + 128 v + 4 l ... of vector v.
template <class Element>
__device__ void store_row(const CombineParams& params, const CutUnit& unit, int row, int column,
                          const float4 (&out)[kVectors], float lse) {
  const QueryHead at = unpack_row(unit.first_row + row, unit.kv_head, params.work.heads_per_kv);
  const std::int64_t token = params.work.first_query(unit.request) + at.query;
  const auto offset = [&](const RowsView& view) {
    return unit.request * view.batch_stride + token * view.token_stride + at.head * view.head_stride;
  };
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    store4(static_cast<Element*>(params.out.data) + offset(params.out) + column + v * kWarpLanes * 4, out[v]);
  }
  if (column == 0 && params.lse.data != nullptr) {
    static_cast<float*>(params.lse.data)[offset(params.lse)] = lse_for_api(lse);
  }
}

using WarpSums = float4[kWarps][kVectors][kWarpLanes];

// Adds the sums of the warps that share a row, in order, for the first of them. All threads call.
__device__ void add_warps(WarpSums& sums, int warps_per_row, float4 (&sum)[kVectors]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  __syncthreads();  // the last unit's sums have been read
#pragma unroll
  for (int v = 0; v < kVectors; ++v) sums[warp][v][lane] = sum[v];
  __syncthreads();
  if (warp % warps_per_row != 0) return;
  for (int other = warp + 1; other < warp + warps_per_row; ++other) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const float4 more = sums[other][v][lane];
      sum[v].x += more.x, sum[v].y += more.y, sum[v].z += more.z, sum[v].w += more.w;
    }
  }
}

// The thread block's share of a unit's rows.
template <class Element>
__device__ void combine_unit(const CombineParams& params, const CutUnit& unit, WarpSums& sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int column = static_cast<int>(blockIdx.y) % kColumnGroups * kColumns + lane * 4;
  const int groups = static_cast<int>(gridDim.y) / kColumnGroups;  // thread blocks that share the part's rows
  const int first_row = unit.split * groups + static_cast<int>(blockIdx.y) / kColumnGroups;
  const int row_stride = unit.num_splits * groups;
  if (first_row >= unit.num_rows) return;

  const int rows = ceil_div(unit.num_rows - first_row, row_stride);
  int warps_per_row = 1;
  while (2 * warps_per_row * rows <= kWarps) warps_per_row *= 2;
  const int share = ceil_div(unit.num_splits, warps_per_row), begin = warp % warps_per_row * share;

  // Several warps a row: all rows are in flight at once, so the loop runs once.
  const int slot = warp / warps_per_row, rows_at_once = kWarps / warps_per_row;
  for (int i = slot; i < rows + slot; i += rows_at_once) {
    const int row = first_row + i * row_stride;
    const auto at = [&](int split) {
      return (unit.first_slot + split) * static_cast<std::int64_t>(params.work.rows_per_unit) + row;
    };
    const auto lse_of = [&](int split) { return params.partial_lse[at(split)]; };
    const auto load = [&](int split, int v) {
      return load4(params.partial_out + at(split) * kLatentDim + column + v * kWarpLanes * 4);
    };
    MergedLse merged;
    float4 sum[kVectors] = {};
    if (i < rows) {
      merged = warp_merge_lse(unit.num_splits, lse_of);
      warp_add_partials(merged, begin, min_of(begin + share, unit.num_splits), lse_of, load, sum);
    }
    if (warps_per_row > 1) add_warps(sums, warps_per_row, sum);
    if (i < rows && warp % warps_per_row == 0) store_row<Element>(params, unit, row, column, sum, merged.lse());
  }
}

template <class Element>
__global__ void __launch_bounds__(kWarps* kWarpLanes, 2) combine(const __grid_constant__ CombineParams params) {
  __shared__ WarpSums sums;
  // The schedule and the lengths are older than the decode kernel, the partials are not.
  const auto part = static_cast<std::int32_t>(blockIdx.x);
  const CutUnit begun = find_cut_unit(params.work, params.parts, part, false);
  const CutUnit left = find_cut_unit(params.work, params.parts, part, true);
  ptx::launch_dependents();
  ptx::wait_for_prerequisites();
  combine_unit<Element>(params, begun, sums);
  combine_unit<Element>(params, left, sums);
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
  // The decode kernel's division between shared memory and L1, or each kernel would wait for the division to change.
  static DeviceBits divided[2] = {};
  FLASH_MLA_TRY(set_attribute_once(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared, divided[problem.dtype == DType::f16]));
  void* arguments[] = {&params};
  FLASH_MLA_CUDA_TRY(cudaLaunchKernelExC, &config, kernel, arguments);
  return {};
}

}  // namespace flash_mla::cuda
