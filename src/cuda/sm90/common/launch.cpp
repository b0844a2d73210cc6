#include "cuda/sm90/common/launch.h"

#include <atomic>
#include <chrono>

#include "core/error.h"
#include "core/int_math.h"
#include "core/online_softmax.h"
#include "cuda/devices.h"
#include "cuda/runtime.h"
#include "cuda/sm90/common/geometry.h"
#include "cuda/sm90/common/params.h"
#include "cuda/tensor_map.h"
#include "cuda/tile/column_order.h"
#include "flash_mla/plan.h"
#include "schedule/layout.h"
#include "schedule/work_of.h"

namespace flash_mla::sm90 {
namespace {

// [64, page_size, slices, h_kv, num_pages]
Status encode_pages(const char* name, const DecodeProblem& problem, const PagesView& view, int columns,
                    CUtensorMap* map) noexcept {
  const CacheView& cache = problem.cache;
  const std::int32_t slices = columns / tile::kSliceColumns, box_rows = min_of(cache.page_size, kBlockTokens);
  cuda::TensorMapSpec spec{.name = name, .dtype = problem.dtype, .base = view.data, .rank = 5};
  spec.sizes = {tile::kSliceColumns, cache.page_size, slices, problem.num_heads_kv, cache.num_pages};
  if (cache.num_pages == 0) {  // every length is 0; should one not be, its boxes lie past the one page and are zeros
    spec.base = problem.q_latent.data;
    spec.sizes[4] = 1;
  }
  spec.stride_elements = {1, view.token_stride, tile::kSliceColumns, view.head_stride, view.page_stride};
  spec.box = {tile::kSliceColumns, box_rows, box_rows == kBlockTokens ? min_of(slices, kStripSlices) : 1, 1, 1};
  return cuda::encode_tensor_map(spec, map);
}

// How the consecutive packed rows of a thread block are a box of q.
struct QueryBoxes {
  std::int32_t period = 0;  // rows of dimension 1; 0: they are no box
  std::int64_t periods = 1;
  std::int64_t row_stride = 0, period_stride = 0;
  std::int32_t box_rows = 0, box_periods = 0;
};

// Rows of both tensors must have the same form.
QueryBoxes find_query_boxes(const DecodeProblem& problem, const RowsView& view, std::int32_t box_rows) noexcept {
  const std::int32_t heads = problem.num_heads_q / problem.num_heads_kv;
  const bool ragged = problem.batch.cu_seqlens_q != nullptr;
  const std::int64_t tokens = ragged ? problem.batch.total_q : problem.batch.seqlen_q;
  const bool even_pitch = tokens == 1 || heads == 1 || view.token_stride == heads * view.head_stride;
  if (tokens * heads >= (std::int64_t{1} << 31)) return {};  // the kernel counts rows in 32 bits
  if (even_pitch) {                                          // one period of all rows
    const std::int64_t stride = heads == 1 && tokens > 1 ? view.token_stride : view.head_stride;
    return {static_cast<std::int32_t>(tokens * heads), 1, stride, 0, box_rows, 1};
  }
  if (heads % box_rows == 0) {
    return {heads, tokens, view.head_stride, view.token_stride, box_rows, 1};
  }
  // A ragged request may begin anywhere, but always at a whole token.
  if (box_rows % heads == 0) {
    return {heads, tokens, view.head_stride, view.token_stride, heads, box_rows / heads};
  }
  return {};
}

// [64, period, periods, slices, batch], slices_per_box a box; with several kv heads [columns, period, periods, h_kv,
// batch], a slice a box.
Status encode_rows(const char* name, const DecodeProblem& problem, const RowsView& view, const QueryBoxes& boxes,
                   int columns, int slices_per_box, CUtensorMap* map) noexcept {
  const std::int32_t heads = problem.num_heads_q / problem.num_heads_kv;
  const bool ragged = problem.batch.cu_seqlens_q != nullptr;
  cuda::TensorMapSpec spec{.name = name, .dtype = problem.dtype, .base = view.data, .rank = 5};
  spec.sizes = {columns, boxes.period, boxes.periods, problem.num_heads_kv, ragged ? 1 : problem.batch.batch};
  spec.stride_elements = {1, boxes.row_stride, boxes.period_stride, heads * view.head_stride, view.batch_stride};
  spec.box = {tile::kSliceColumns, boxes.box_rows, boxes.box_periods, 1, 1};
  if (problem.num_heads_kv == 1) {
    spec.sizes[0] = spec.stride_elements[3] = tile::kSliceColumns;
    spec.sizes[3] = columns / tile::kSliceColumns;
    spec.box[3] = min_of(columns / tile::kSliceColumns, slices_per_box);
  }
  return cuda::encode_tensor_map(spec, map);
}

Status encode_page_maps(const DecodeProblem& problem, TensorMaps* maps) noexcept {
  FLASH_MLA_TRY(encode_pages("kv_cache", problem, problem.cache.latent, kLatentDim, &maps->k_latent));
  return encode_pages("k_rope_cache", problem, problem.cache.rope, kRopeDim, &maps->k_rope);
}

Status encode_query_maps(const DecodeProblem& problem, const DecodeKernel& kernel, TensorMaps* maps,
                         std::int32_t* q_period) noexcept {
  const int box_rows = kernel.rows_per_thread_block, slices = kernel.query_slices_per_box;
  const QueryBoxes latent = find_query_boxes(problem, problem.q_latent, box_rows);
  const QueryBoxes rope = find_query_boxes(problem, problem.q_rope, box_rows);
  *q_period = latent.period == rope.period && latent.box_rows == rope.box_rows ? latent.period : 0;
  if (*q_period == 0) return {};
  FLASH_MLA_TRY(encode_rows("q", problem, problem.q_latent, latent, kLatentDim, slices, &maps->q_latent));
  return encode_rows("q_rope", problem, problem.q_rope, rope, kRopeDim, slices, &maps->q_rope);
}

// Memory is faster if what lies together is asked for together, so a block as a whole. That costs nothing where the
// next block is on its way for as long as this one takes to be used; where thread blocks share what they read,
// arithmetic is the limit, and each strip is wanted as early as can be. 64 rows lost 10 % with a share of 37,000 bytes
// per us (H200), and gained 1 % with 25,000 (H100).
bool wants_blocks_at_once(std::int32_t cohort, int device) noexcept {
  constexpr double kBlockBytes = kSlices * kSliceBytes, kBlockUse_us = 2.5;
  const double share = cuda::Devices::get().memory_share(device);
  return cohort == 1 && share > 0 && kBlockBytes > kBlockUse_us * share;
}

// A tag that differs from launch to launch: what other launches left is known by it.
std::uint64_t next_launch_tag() noexcept {
  static const auto seed = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  static std::atomic<std::uint64_t> launches = 0;
  std::uint64_t tag = 0;
  while (tag == 0) {
    tag = schedule_hash::mix(seed + launches.fetch_add(1, std::memory_order_relaxed)) << cuda::kGateTagBit;
  }
  return tag;
}

}  // namespace

DecodeKernel find_kernel(DType dtype, std::int64_t rows, bool small_steps) noexcept {
#define FLASH_MLA_VARIANT(name, type, element)                         \
  if (dtype == DType::type) {                                          \
    if (rows > tile::kMaxTransposedRows) return dense_decode_##name(); \
    return few_rows_decode_##name(rows, small_steps);                  \
  }
#include "cuda/variants.def"
#undef FLASH_MLA_VARIANT
  return {};
}

Status launch_decode(const DecodeProblem& problem, const StepShape& step, const void* schedule_memory, void* scratch,
                     int device, cudaStream_t stream) noexcept {
  const DecodeKernel kernel = find_kernel(problem.dtype, step.rows_per_unit, step.small_steps);
  if (kernel.function == nullptr) {
    return make_error(StatusCode::unsupported, "there is no CUDA kernel for dtype %s", to_string(problem.dtype));
  }
  TensorMaps maps = {};
  DecodeParams params;
  FLASH_MLA_TRY(encode_page_maps(problem, &maps));
  FLASH_MLA_TRY(encode_query_maps(problem, kernel, &maps, &params.q_period));
  params.work = work_of(problem, step.rows_per_unit);
  params.header = ScheduleLayout::header(schedule_memory);
  params.parts = ScheduleLayout::parts(schedule_memory);
  params.cohort = step.rows_per_unit / kernel.rows_per_thread_block;
  params.blocks_at_once = wants_blocks_at_once(params.cohort, device);
  params.partials =
      cuda::PartialsLayout{step.num_parts, step.rows_per_unit, params.cohort, step.small_steps}.at(scratch);
  params.launch_tag = next_launch_tag();
  params.block_table = problem.block_table;
  params.block_table_stride = problem.block_table_stride;
  params.block_table_columns = problem.cache.num_pages > 0 ? problem.block_table_columns : 0;
  params.page_size = problem.cache.page_size;
  params.num_pages = static_cast<std::int32_t>(max_of<std::int64_t>(problem.cache.num_pages, 1));
  params.total_q = problem.batch.total_q;
  params.q_latent = problem.q_latent;
  params.q_rope = problem.q_rope;
  params.out = problem.out;
  params.lse = problem.lse;
  params.scale_log2 = problem.softmax_scale * kLog2e;

  // Thread blocks that share their tokens stand in pairs on neighbouring multiprocessors: both ask for the same at
  // nearly the same time.
  const int pair = params.cohort % 2 == 0 ? 2 : 1;
  void* arguments[] = {&maps, &params};
  return cuda::launch_kernel(kernel.function, *kernel.handles,
                             {step.num_parts * params.cohort, pair, kernel.threads, kernel.shared_memory_bytes},
                             arguments, device, stream);
}

}  // namespace flash_mla::sm90
