// A decode problem that is made, run and judged on the GPU: for steps too large for the host, and for many runs without
// a copy to it. As hostile as reference/problem.h, whose layout it has.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "device/device_count.h"
#include "device/gpu.h"
#include "flash_mla/flash_mla.h"
#include "reference/problem.h"
#include "reference/reference.h"

namespace flash_mla::test {

using Lengths = std::vector<std::int32_t>;

// A copy of results, gaps included.
struct Snapshot {
  std::vector<DeviceMemory> parts;  // out, and lse if there is one
};

class DeviceProblem {
 public:
  // `guarded`: an access behind any tensor is a fault. Tensors are on GPU `device`; it must be current.
  explicit DeviceProblem(const reference::ProblemSpec& spec, bool guarded = false, int device = 0);
  DeviceProblem(const DeviceProblem&) = delete;
  DeviceProblem& operator=(const DeviceProblem&) = delete;
  ~DeviceProblem();

  // GPU memory that a problem of this size takes.
  [[nodiscard]] static std::int64_t bytes_needed(const reference::ProblemSpec& spec);

  [[nodiscard]] const reference::ProblemSpec& spec() const { return layout_.spec(); }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  // On the GPU; a test may change them.
  [[nodiscard]] DecodeArgs& args() { return args_; }
  [[nodiscard]] ScheduleArgs& schedule_args() { return schedule_args_; }

  // Enqueue on stream(); throw when the library refuses.
  void schedule();
  void decode();
  void clear_results();  // NaN everywhere, in scratch too
  void run() { clear_results(), schedule(), decode(); }
  // Wait before and after.
  void set_lengths(const Lengths& lengths);
  // Ragged: query tokens of each request. Neither the most nor their sum may grow.
  void set_queries(const Lengths& queries);
  // After a test changed elements, in stream order.
  void accept_inputs() { input_hash_ = hash_inputs(); }

  void synchronize() { FLASH_MLA_REQUIRE(cudaStreamSynchronize(stream_)); }

  // All rows with padding, or max_rows of them, spread evenly.
  [[nodiscard]] std::vector<reference::RowId> rows(std::int64_t max_rows = INT64_MAX) const;
  // Of the results that are there: every element written, nothing between rows or in inputs, these rows within the
  // bound.
  [[nodiscard]] testing::AssertionResult is_right(std::int64_t max_rows);
  // Of the results that are there: nothing between rows and no input was written.
  [[nodiscard]] testing::AssertionResult left_all_else_alone();
  // run(), is_right().
  [[nodiscard]] testing::AssertionResult runs_right(std::int64_t max_rows);

  // The results when what is enqueued has run (waits), and how many of their words differ later.
  [[nodiscard]] Snapshot snapshot();
  void count_differing(const Snapshot& expected, const DeviceCount& count);  // enqueues
  [[nodiscard]] std::int64_t words_differing(const Snapshot& expected);      // waits

  [[nodiscard]] std::int64_t out_bytes() const { return layout_.buffers()[out_index_].bytes(); }

 private:
  [[nodiscard]] testing::AssertionResult left_gaps_alone();
  [[nodiscard]] std::int64_t hash_inputs();
  void upload(const TensorView& view, const Lengths& values);

  reference::Problem layout_;  // only tables and lengths are filled
  Lengths queries_;            // of each request
  Plan plan_;
  cudaStream_t stream_ = nullptr;
  std::vector<std::shared_ptr<void>> memory_;  // buffers, schedule memory, scratch
  std::vector<void*> bases_;                   // of buffers
  std::size_t out_index_ = 0;                  // the first result among buffers
  DecodeArgs args_;
  ScheduleArgs schedule_args_;
  MemoryView schedule_memory_, scratch_;
  std::int64_t input_hash_ = 0;
};

}  // namespace flash_mla::test
