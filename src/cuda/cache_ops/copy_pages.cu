// Copies whole pages: pages[destination] = pages[source] for each pair, all pairs at once (no destination is a source).
//
// A page is page_size * h_kv rows of contiguous elements, or, when nothing lies between them, one long row. Thread
// blocks take 16 KB of a page each, four vectors of 16 bytes a thread in flight. Rows that are no multiple of 16 bytes
// go by elements of 2 bytes, of which every type is made.
#include "core/int_math.h"
#include "cuda/cache_ops/cache_ops.h"
#include "cuda/runtime.h"

namespace flash_mla::cuda {
namespace {

constexpr int kThreads = 256, kUnitsPerThread = 4, kUnitsPerThreadBlock = kThreads * kUnitsPerThread;
constexpr std::int64_t kMaxThreadBlocks = 1 << 20;

// A page in units of what a thread moves at once. Strides in bytes.
struct PageShape {
  std::int64_t page_stride = 0, token_stride = 0, head_stride = 0;
  std::int64_t row_units = 0;
  std::int64_t units = 0;  // of the whole page
  std::int32_t num_heads = 1;

  __device__ std::int64_t offset(std::int64_t unit, std::int64_t unit_bytes) const {
    if (row_units == units) return unit * unit_bytes;  // spares a division where the page is one row
    const std::int64_t row = unit / row_units;
    return row / num_heads * token_stride + row % num_heads * head_stride + unit % row_units * unit_bytes;
  }
};

struct CopyParams {
  char* pages;
  std::int64_t num_pages;
  std::int64_t pairs;
  const std::int64_t* page_pairs;  // [pairs, 2]
  PageShape shape;
};

// Moves the units first + i * kThreads of a page, i < kUnitsPerThread.
template <class Unit>
__device__ void copy_units(const PageShape& shape, char* to, const char* from, std::int64_t first) {
  std::int64_t offsets[kUnitsPerThread];
  Unit units[kUnitsPerThread];
#pragma unroll
  for (int i = 0; i < kUnitsPerThread; ++i) {
    if (first + i * kThreads >= shape.units) break;
    offsets[i] = shape.offset(first + i * kThreads, sizeof(Unit));
    units[i] = *reinterpret_cast<const Unit*>(from + offsets[i]);
  }
#pragma unroll
  for (int i = 0; i < kUnitsPerThread; ++i) {
    if (first + i * kThreads >= shape.units) break;
    *reinterpret_cast<Unit*>(to + offsets[i]) = units[i];
  }
}

template <class Unit>
__global__ void __launch_bounds__(kThreads) copy_pages(const __grid_constant__ CopyParams params) {
  const std::int64_t pieces = ceil_div<std::int64_t>(params.shape.units, kUnitsPerThreadBlock);  // of a page
  for (std::int64_t i = blockIdx.x; i < params.pairs * pieces; i += gridDim.x) {
    const std::int64_t* pair = params.page_pairs + i / pieces * 2;
    const std::int64_t source = pair[0], destination = pair[1];
    if (source < 0 || source >= params.num_pages || destination < 0 || destination >= params.num_pages) continue;
    copy_units<Unit>(params.shape, params.pages + destination * params.shape.page_stride,
                     params.pages + source * params.shape.page_stride, i % pieces * kUnitsPerThreadBlock + threadIdx.x);
  }
}

PageShape shape_of(const CopyPagesProblem& problem, std::int64_t unit_bytes) {
  const PagesView& pages = problem.pages;
  const std::int64_t bytes = problem.element_bytes, columns = problem.columns;
  PageShape shape = {pages.page_stride * bytes, pages.token_stride * bytes, pages.head_stride * bytes};
  shape.row_units = columns * bytes / unit_bytes;
  shape.units = shape.row_units * problem.num_heads_kv * problem.page_size;
  shape.num_heads = problem.num_heads_kv;
  const bool gapless = (problem.num_heads_kv == 1 || pages.head_stride == columns) &&
                       (problem.page_size == 1 || pages.token_stride == columns * problem.num_heads_kv);
  if (gapless) shape.row_units = shape.units;
  return shape;
}

}  // namespace

Status launch_copy_pages(const CopyPagesProblem& problem, cudaStream_t stream) noexcept {
  if (problem.pairs == 0) return {};
  const std::int64_t row_bytes = static_cast<std::int64_t>(problem.columns) * problem.element_bytes;
  const bool by_vectors = row_bytes % static_cast<std::int64_t>(sizeof(uint4)) == 0;
  CopyParams params = {static_cast<char*>(problem.pages.data), problem.num_pages, problem.pairs, problem.page_pairs,
                       shape_of(problem, by_vectors ? sizeof(uint4) : sizeof(std::uint16_t))};
  const std::int64_t pieces = ceil_div<std::int64_t>(params.shape.units, kUnitsPerThreadBlock);
  const void* kernel = by_vectors ? reinterpret_cast<const void*>(&copy_pages<uint4>)
                                  : reinterpret_cast<const void*>(&copy_pages<std::uint16_t>);
  void* arguments[] = {&params};
  FLASH_MLA_CUDA_TRY(cudaLaunchKernel, kernel,
                     dim3(static_cast<unsigned>(min_of(problem.pairs * pieces, kMaxThreadBlocks))), dim3(kThreads),
                     arguments, 0, stream);
  return {};
}

}  // namespace flash_mla::cuda
