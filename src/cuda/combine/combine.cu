// Merges the units that part boundaries cut, each row over the unit's splits i in their order:
//
//   lse = ln sum_i exp(lse_i)      out = sum_i exp(lse_i - lse) o_i
//
// The work is dealt as the partials were: the k parts that share a unit share its items, so whatever k is, each part
// reads as much as it wrote, and no list of units is needed. A part has at most two cut units: the one it found begun
// and the one it left unfinished. An item is a row where splits are few, 256 or 128 columns of a row where they are
// many. A warp takes an item; where there are fewer items than warps, several warps share an item's splits, and their
// sums are added in order.
#include "core/row_packing.h"
#include "cuda/combine/combine.h"
#include "cuda/combine/warp_merge.h"
#include "cuda/ptx/dependent_launch.h"
#include "cuda/runtime.h"
#include "cuda/tile/column_order.h"
#include "flash_mla/plan.h"
#include "schedule/layout.h"
#include "schedule/number_splits.h"
#include "schedule/work_of.h"

namespace flash_mla::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreadBlocks = 2;  // resident on a multiprocessor
constexpr int kVectorColumns = kWarpLanes * 4;
constexpr int kRowVectors = kLatentDim / kVectorColumns;
constexpr int kRowsPerBlock = 32;  // thread blocks for each 32 rows of a unit
constexpr int kFewSplits = 4;      // at most so many: whole rows

struct CombineParams {
  Work work;
  const PartRecord* parts;
  const float* partial_out;    // [slots, rows_per_unit, 512]
  const float* partial_lse;    // [slots, rows_per_unit]
  const float* partial_scale;  // [slots, rows_per_unit], of partials in the order of tile/column_order.h; else null
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

// The result of one item; lane l has columns column + 128 v + 4 l ... of vector v.
template <class Element, int kVectors>
__device__ void store_item(const CombineParams& params, const CutUnit& unit, int row, int column,
                           const float4 (&out)[kVectors], float lse) {
  const QueryHead at = unpack_row(unit.first_row + row, unit.kv_head, params.work.heads_per_kv);
  const std::int64_t token = params.work.first_query(unit.request) + at.query;
  const auto offset = [&](const RowsView& view) {
    return unit.request * view.batch_stride + token * view.token_stride + at.head * view.head_stride;
  };
  Element* const to = static_cast<Element*>(params.out.data) + offset(params.out);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int position = column + v * kVectorColumns;
    if (params.partial_scale == nullptr) {
      store4(to + position, out[v]);
    } else {
      Element* const transposed = to + tile::column_at_position(position);
      transposed[0] = static_cast<Element>(out[v].x);
      transposed[tile::kSliceColumns] = static_cast<Element>(out[v].y);
      transposed[2 * tile::kSliceColumns] = static_cast<Element>(out[v].z);
      transposed[3 * tile::kSliceColumns] = static_cast<Element>(out[v].w);
    }
  }
  if (column == 0 && params.lse.data != nullptr) {
    static_cast<float*>(params.lse.data)[offset(params.lse)] = lse_for_api(lse);
  }
}

constexpr int kMostVectorsShared = 2;  // of an item whose splits several warps share
using WarpSums = float4[kWarps][kMostVectorsShared][kWarpLanes];

// Adds the sums of the warps that share an item, in order, for the first of them. All threads call.
template <int kVectors>
__device__ void add_warps(WarpSums& sums, int warps_per_item, float4 (&sum)[kVectors]) {
  static_assert(kVectors <= kMostVectorsShared);
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  __syncthreads();  // the last unit's sums have been read
#pragma unroll
  for (int v = 0; v < kVectors; ++v) sums[warp][v][lane] = sum[v];
  __syncthreads();
  if (warp % warps_per_item != 0) return;
#pragma unroll 1
  for (int other = warp + 1; other < warp + warps_per_item; ++other) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const float4 more = sums[other][v][lane];
      sum[v].x += more.x, sum[v].y += more.y, sum[v].z += more.z, sum[v].w += more.w;
    }
  }
}

// A unit's items, of which a thread block has those from `first` on in steps of `stride`.
struct Share {
  int first, stride;
};

// The thread block's items, kVectors * 128 columns each.
template <class Element, int kVectors, int kInFlight>
__device__ void combine_items(const CombineParams& params, const CutUnit& unit, Share share, WarpSums& sums) {
  constexpr int kItemsPerRow = kRowVectors / kVectors;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  if (share.first >= unit.num_rows * kItemsPerRow) return;
  const int items = ceil_div(unit.num_rows * kItemsPerRow - share.first, share.stride);
  int warps_per_item = 1;  // more than one: there is no more than an item a warp, so the loop runs once
  if constexpr (kVectors <= kMostVectorsShared) {
    while (2 * warps_per_item * items <= kWarps && warps_per_item * kInFlight < unit.num_splits) warps_per_item *= 2;
  }
  const int splits = ceil_div(unit.num_splits, warps_per_item), begin = warp % warps_per_item * splits;

  for (int done = 0; done < items; done += kWarps / warps_per_item) {
    const int i = done + warp / warps_per_item;
    const int item = share.first + i * share.stride, row = item / kItemsPerRow;
    const int column = item % kItemsPerRow * kVectors * kVectorColumns + lane * 4;
    const std::int64_t first = unit.first_slot * static_cast<std::int64_t>(params.work.rows_per_unit) + row;
    const float* partial = params.partial_out + first * kLatentDim + column;
    const auto index_of = [&](int split) {
      return first + static_cast<std::int64_t>(split) * params.work.rows_per_unit;
    };
    const auto lse_of = [&](int split) { return params.partial_lse[index_of(split)]; };
    const auto scale_of = [&](int split) {
      return params.partial_scale == nullptr ? 1.0f : params.partial_scale[index_of(split)];
    };
    const auto load = [&](int split, int v) {
      return load4(partial + static_cast<std::int64_t>(split) * params.work.rows_per_unit * kLatentDim +
                   v * kVectorColumns);
    };
    float4 sum[kVectors] = {};
    MergedLse merged;
    if (i < items) {
      merged = warp_merge<kInFlight>(unit.num_splits, begin, min_of(begin + splits, unit.num_splits), lse_of, scale_of,
                                     load, sum);
    }
    if constexpr (kVectors <= kMostVectorsShared) {
      if (warps_per_item > 1) add_warps(sums, warps_per_item, sum);
    }
    if (i < items && warp % warps_per_item == 0) store_item<Element>(params, unit, row, column, sum, merged.lse());
  }
}

template <class Element>
__global__ void __launch_bounds__(kWarps* kWarpLanes, kThreadBlocks)
    combine(const __grid_constant__ CombineParams params) {
  __shared__ WarpSums sums;
  const auto part = static_cast<std::int32_t>(blockIdx.x);
  const int index = static_cast<int>(blockIdx.y), groups = static_cast<int>(gridDim.y);
  ptx::launch_dependents();
  // A loop, for code that runs once arrives from memory as late as data.
#pragma unroll 1
  for (int tail = 0; tail < 2; ++tail) {
    const CutUnit unit = find_cut_unit(params.work, params.parts, part, tail != 0);
    const Share share = {unit.split * groups + index, unit.num_splits * groups};
    ptx::wait_for_prerequisites();  // for the partials; the schedule and the lengths are older than the decode kernel
    // What an item is, and how many splits of it are under way at a time: about 4 KB a warp.
    if (unit.num_splits <= kFewSplits) {
      combine_items<Element, kRowVectors, 2>(params, unit, share, sums);
    } else if (unit.num_splits <= kWarpLanes) {
      combine_items<Element, 2, 4>(params, unit, share, sums);
    } else {
      combine_items<Element, 1, 8>(params, unit, share, sums);
    }
  }
}

}  // namespace

Status launch_combine(const DecodeProblem& problem, std::int32_t num_parts, std::int32_t rows_per_unit,
                      const void* schedule_memory, void* scratch, cudaStream_t stream) noexcept {
  if (num_parts < 2) return {};
  const ScratchLayout layout{num_parts, rows_per_unit};
  CombineParams params = {work_of(problem, rows_per_unit),
                          ScheduleLayout::parts(schedule_memory),
                          ScratchLayout::partial_out(scratch),
                          layout.partial_lse(scratch),
                          rows_per_unit <= tile::kMaxTransposedRows ? layout.partial_scale(scratch) : nullptr,
                          problem.out,
                          problem.lse};
  const std::int64_t heads = problem.num_heads_q / problem.num_heads_kv;
  const std::int64_t rows = min_of<std::int64_t>(rows_per_unit, problem.batch.seqlen_q * heads);
  const std::int64_t groups = max_of<std::int64_t>(ceil_div<std::int64_t>(rows, kRowsPerBlock), 1);
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
