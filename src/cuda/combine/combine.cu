// One warp merges one row of one cut unit:
//
//   lse = ln sum_i exp(lse_i)      out = sum_i exp(lse_i - lse) o_i        over the unit's splits i, in their order
//
// A unit is found through the part that begins it: part p left a unit unfinished if the next record stands inside it,
// and began it if that record names p as the first of the unit's parts. So block (p, g) of the grid looks at record
// p + 1 and takes rows of group g; most blocks find nothing and end.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "core/error.h"
#include "core/partial.h"
#include "core/row_packing.h"
#include "cuda/combine/combine.h"
#include "cuda/runtime.h"
#include "cuda/work_of.h"
#include "flash_mla/plan.h"
#include "schedule/layout.h"

namespace flash_mla::cuda {
namespace {

constexpr int kWarps = 4;  // rows of a thread block
constexpr int kLanes = 32;
constexpr int kColumnsPerLane = kLatentDim / kLanes;
constexpr int kVectors = kColumnsPerLane / 4;  // float4 loads of a lane, 128 columns apart

struct CombineParams {
  Work work;
  const ScheduleHeader* header;
  const PartRecord* parts;
  const float* partial_out;  // [slots, rows_per_unit, 512]
  const float* partial_lse;  // [slots, rows_per_unit]
  RowsView out, lse;
};

// The cut unit that a part begins.
struct CutUnit {
  std::int32_t request, kv_head, first_row, num_rows;
  std::int32_t first_slot, num_splits;  // 0: the part begins none
};

__device__ CutUnit find_cut_unit(const CombineParams& params, int part) {
  const PartRecord& next = params.parts[part + 1];
  CutUnit unit = {};
  if (next.block == 0 || next.head_first_part != part || next.request >= params.work.batch) return unit;
  const std::int32_t bundles = params.work.bundles(next.request);
  if (bundles == 0) return unit;
  const std::int32_t bundle = next.sub % bundles;
  const PartRecord& own = params.parts[part];
  unit.request = next.request;
  unit.kv_head = next.sub / bundles;
  unit.first_row = bundle * params.work.rows_per_unit;
  unit.num_rows = min_of(params.work.rows(next.request) - unit.first_row, params.work.rows_per_unit);
  unit.first_slot = own.first_slot + (own.block > 0 ? 1 : 0);
  unit.num_splits = next.head_last_part - next.head_first_part + 1;
  return unit;
}

template <class Element>
__device__ void store(Element* to, float4 v) {
  const Element elements[4] = {static_cast<Element>(v.x), static_cast<Element>(v.y), static_cast<Element>(v.z),
                               static_cast<Element>(v.w)};
  uint2 bits;
  memcpy(&bits, elements, sizeof bits);
  *reinterpret_cast<uint2*>(to) = bits;
}

template <class Element>
__global__ void __launch_bounds__(kWarps* kLanes) combine(const __grid_constant__ CombineParams params) {
  const CutUnit unit = find_cut_unit(params, blockIdx.x);
  const int row = blockIdx.y * kWarps + threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  if (row >= (unit.num_splits > 0 ? unit.num_rows : 0)) return;

  const std::int64_t rows_per_unit = params.work.rows_per_unit;
  const std::int64_t first = unit.first_slot * rows_per_unit + row;
  const auto lse_of = [&](int split) { return params.partial_lse[first + split * rows_per_unit]; };
  const MergedLse merged = merge_lse(unit.num_splits, lse_of);

  float4 sum[kVectors] = {};
  for (int split = 0; split < unit.num_splits; ++split) {
    const float factor = merged.factor(lse_of(split));
    if (factor == 0.f) continue;
    const auto* partial =
        reinterpret_cast<const float4*>(params.partial_out + (first + split * rows_per_unit) * kLatentDim);
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const float4 o = partial[i * kLanes + lane];
      sum[i].x += factor * o.x, sum[i].y += factor * o.y, sum[i].z += factor * o.z, sum[i].w += factor * o.w;
    }
  }

  const QueryHead at = unpack_row(unit.first_row + row, unit.kv_head, params.work.heads_per_kv);
  const std::int64_t token = params.work.first_query(unit.request) + at.query;
  const auto offset = [&](const RowsView& view) {
    return unit.request * view.batch_stride + token * view.token_stride + at.head * view.head_stride;
  };
  Element* out = static_cast<Element*>(params.out.data) + offset(params.out);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) store(out + (i * kLanes + lane) * 4, sum[i]);
  if (lane == 0 && params.lse.data != nullptr) {
    static_cast<float*>(params.lse.data)[offset(params.lse)] = lse_for_api(merged.lse());
  }
}

}  // namespace

Status launch_combine(const DecodeProblem& problem, std::int32_t num_parts, std::int32_t rows_per_unit,
                      const void* schedule_memory, void* scratch, cudaStream_t stream) noexcept {
  if (num_parts < 2) return {};
  const ScratchLayout layout{num_parts, rows_per_unit};
  CombineParams params = {work_of(problem, rows_per_unit),
                          ScheduleLayout::header(schedule_memory),
                          ScheduleLayout::parts(schedule_memory),
                          ScratchLayout::partial_out(scratch),
                          layout.partial_lse(scratch),
                          problem.out,
                          problem.lse};
  const std::int64_t heads = problem.num_heads_q / problem.num_heads_kv;
  const std::int64_t rows = min_of<std::int64_t>(rows_per_unit, problem.batch.seqlen_q * heads);
  const dim3 grid(static_cast<unsigned>(num_parts - 1), static_cast<unsigned>(ceil_div<std::int64_t>(rows, kWarps)));
  const void* kernel = problem.dtype == DType::bf16 ? reinterpret_cast<const void*>(&combine<__nv_bfloat16>)
                                                    : reinterpret_cast<const void*>(&combine<__half>);
  void* arguments[] = {&params};
  FLASH_MLA_CUDA_TRY(cudaLaunchKernel, kernel, grid, dim3(kWarps * kLanes), arguments, 0, stream);
  return {};
}

}  // namespace flash_mla::cuda
