// One row's tensors on the GPU: several cold sets of pages, so that no call finds its cache in L2.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "flash_mla/flash_mla.h"
#include "rows.h"

namespace bench {

// Throws std::runtime_error naming the call.
void check(cudaError_t error, const char* call);
void check(const flash_mla::Status& status, const char* call);

// Device memory that frees itself.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t bytes);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();
  void* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

// Pages of 64 tokens of random normal bf16 in random order, shared by all rows.
class PagePool {
 public:
  explicit PagePool(std::int64_t num_pages);
  std::int64_t num_pages() const { return static_cast<std::int64_t>(order_.size()); }
  void* data() const { return memory_.data(); }
  const std::vector<std::int32_t>& order() const { return order_; }

 private:
  Buffer memory_;
  std::vector<std::int32_t> order_;
};

// A kernel that does nothing.
void launch_nothing(cudaStream_t stream);
void fill_normal(void* bf16_data, std::int64_t elements, std::uint64_t seed);

class Workload {
 public:
  Workload(const Row& row, const PagePool& pool);

  // Cold sets of pages, each with its own queries and outputs.
  int num_sets() const { return num_sets_; }
  void decode(int set, cudaStream_t stream);
  void schedule(cudaStream_t stream);

 private:
  flash_mla::Plan plan_;
  flash_mla::DecodeArgs args_;
  flash_mla::ScheduleArgs schedule_args_;
  std::int64_t table_columns_ = 0, q_elements_ = 0, out_elements_ = 0, lse_elements_ = 0;
  int num_sets_ = 0, batch_ = 0;
  Buffer q_, out_, lse_, tables_, seqlens_, schedule_memory_, scratch_;
};

}  // namespace bench
