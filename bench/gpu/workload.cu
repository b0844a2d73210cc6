// See workload.h.
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <utility>

#include "workload.h"

namespace bench {
namespace {

constexpr std::int64_t kPageBytes = 64 * 576 * 2;
constexpr std::int64_t kColdBytes = 160 << 20;  // several times the L2

__device__ std::uint32_t mix(std::uint64_t x) {
  x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53ull, x ^= x >> 33;
  return static_cast<std::uint32_t>(x);
}

__global__ void nothing() {}

// Box-Muller over a counter.
__global__ void fill_normal_kernel(__nv_bfloat162* data, std::int64_t pairs, std::uint64_t seed) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < pairs; i += step) {
    const float u = (mix(2 * i + (seed << 40)) + 1.0f) * 0x1p-32f, v = mix(2 * i + 1 + (seed << 40)) * 0x1p-32f;
    float sine, cosine;
    sincospif(2 * v, &sine, &cosine);
    const float radius = sqrtf(-2 * logf(fminf(u, 1.0f)));
    data[i] = __floats2bfloat162_rn(radius * cosine, radius * sine);
  }
}

Buffer upload(const std::vector<std::int32_t>& host) {
  Buffer buffer(std::max<std::int64_t>(host.size(), 1) * sizeof(std::int32_t));
  check(cudaMemcpy(buffer.data(), host.data(), host.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice),
        "cudaMemcpy");
  return buffer;
}

}  // namespace

void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}

void check(const flash_mla::Status& status, const char* call) {
  if (!status.ok()) throw std::runtime_error(std::string(call) + ": " + status.message());
}

Buffer::Buffer(std::int64_t bytes) : bytes_(bytes) {
  check(cudaMalloc(&data_, std::max<std::int64_t>(bytes, 1)), "cudaMalloc");
}
Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }
Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
Buffer::~Buffer() { cudaFree(data_); }

void launch_nothing(cudaStream_t stream) {
  nothing<<<1, 32, 0, stream>>>();
  check(cudaGetLastError(), "launch_nothing");
}

void fill_normal(void* bf16_data, std::int64_t elements, std::uint64_t seed) {
  fill_normal_kernel<<<2048, 256>>>(static_cast<__nv_bfloat162*>(bf16_data), elements / 2, seed);
  check(cudaGetLastError(), "fill_normal");
  check(cudaDeviceSynchronize(), "fill_normal");
}

PagePool::PagePool(std::int64_t num_pages) : memory_(num_pages * kPageBytes), order_(num_pages) {
  fill_normal(memory_.data(), num_pages * kPageBytes / 2, 1);
  for (std::int64_t i = 0; i < num_pages; ++i) order_[i] = static_cast<std::int32_t>(i);
  std::shuffle(order_.begin(), order_.end(), std::mt19937(7));
}

Workload::Workload(const Row& row, const PagePool& pool) : batch_(row.batch) {
  using flash_mla::DType;
  using flash_mla::TensorView;
  const flash_mla::Device gpu{flash_mla::DeviceType::cuda, 0};

  // As many disjoint sets of pages as make the caches cold.
  const std::int64_t pages = row.pages();
  std::int64_t longest = 0;
  for (const std::int64_t length : row.seqlens) longest = std::max(longest, (length + 63) / 64);
  if (pages > pool.num_pages()) throw std::runtime_error("the page pool is too small for " + row.name());
  num_sets_ = static_cast<int>(std::clamp<std::int64_t>((kColdBytes + pages * kPageBytes - 1) / (pages * kPageBytes), 1,
                                                        pool.num_pages() / pages));
  table_columns_ = longest;
  std::vector<std::int32_t> tables(num_sets_ * batch_ * table_columns_, -1);
  std::int64_t next = 0;
  for (int set = 0; set < num_sets_; ++set)
    for (int request = 0; request < batch_; ++request)
      for (std::int64_t page = 0; page < (row.seqlens[request] + 63) / 64; ++page)
        tables[(static_cast<std::int64_t>(set) * batch_ + request) * table_columns_ + page] = pool.order()[next++];
  tables_ = upload(tables);
  seqlens_ = upload(row.seqlens);

  q_elements_ = static_cast<std::int64_t>(batch_) * row.seqlen_q * row.heads * 576;
  out_elements_ = q_elements_ / 576 * 512;
  lse_elements_ = q_elements_ / 576;
  q_ = Buffer(q_elements_ * num_sets_ * 2);
  out_ = Buffer(out_elements_ * num_sets_ * 2);
  lse_ = Buffer(lse_elements_ * num_sets_ * 4);
  fill_normal(q_.data(), q_elements_ * num_sets_, 2);

  flash_mla::PlanConfig config;
  config.device = gpu, config.max_batch = batch_, config.max_seqlen_q = row.seqlen_q, config.num_heads_q = row.heads;
  auto plan = flash_mla::plan(config);
  check(plan.status(), "plan");
  plan_ = *plan;
  schedule_memory_ = Buffer(plan_.schedule_bytes());
  scratch_ = Buffer(plan_.scratch_bytes());

  schedule_args_.cache_seqlens = TensorView::contiguous(seqlens_.data(), DType::i32, {batch_}, gpu);
  args_.cache_seqlens = schedule_args_.cache_seqlens;
  args_.q = TensorView::contiguous(q_.data(), DType::bf16, {batch_, row.seqlen_q, row.heads, 576}, gpu);
  args_.out = TensorView::contiguous(out_.data(), DType::bf16, {batch_, row.seqlen_q, row.heads, 512}, gpu);
  args_.lse = TensorView::contiguous(lse_.data(), DType::f32, {batch_, row.heads, row.seqlen_q}, gpu);
  args_.kv_cache = TensorView::contiguous(pool.data(), DType::bf16, {pool.num_pages(), 64, 1, 576}, gpu);
  args_.block_table = TensorView::contiguous(tables_.data(), DType::i32, {batch_, table_columns_}, gpu);
  args_.softmax_scale = 1 / std::sqrt(192.0f);
}

void Workload::schedule(cudaStream_t stream) {
  check(flash_mla::schedule(plan_, schedule_args_,
                            {schedule_memory_.data(), schedule_memory_.bytes(), plan_.config().device}, {stream}),
        "schedule");
}

void Workload::decode(int set, cudaStream_t stream) {
  flash_mla::DecodeArgs args = args_;
  args.q.data = static_cast<char*>(q_.data()) + set * q_elements_ * 2;
  args.out.data = static_cast<char*>(out_.data()) + set * out_elements_ * 2;
  args.lse.data = static_cast<char*>(lse_.data()) + set * lse_elements_ * 4;
  args.block_table.data =
      static_cast<std::int32_t*>(tables_.data()) + static_cast<std::int64_t>(set) * batch_ * table_columns_;
  const flash_mla::Device gpu = plan_.config().device;
  check(flash_mla::decode(plan_, args, {schedule_memory_.data(), schedule_memory_.bytes(), gpu},
                          {scratch_.data(), scratch_.bytes(), gpu}, {stream}),
        "decode");
}

}  // namespace bench
