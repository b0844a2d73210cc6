// Runs a reference::Problem on the GPU: its buffers are uploaded, the library works on the copies, and the results come
// back to where the problem's own arguments expect them, so that the host's comparison applies.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "device/gpu.h"
#include "flash_mla/flash_mla.h"
#include "reference/problem.h"

namespace flash_mla::test {

class DeviceStep {
 public:
  // num_parts 0: as many as the GPU has multiprocessors for.
  explicit DeviceStep(const reference::Problem& problem, std::int32_t num_parts = 0);

  [[nodiscard]] const Plan& plan() const { return plan_; }
  // On the device; a test may change them.
  [[nodiscard]] DecodeArgs& args() { return args_; }
  [[nodiscard]] ScheduleArgs& schedule_args() { return schedule_args_; }
  [[nodiscard]] Stream stream() const { return {stream_.handle}; }

  // Copies the problem's buffers to the device, after a test changed them.
  void upload();
  // Both enqueue on stream().
  Status schedule();
  Status decode();
  // Waits, and copies out and lse to the problem's buffers.
  void fetch_results();
  void synchronize();

  [[nodiscard]] DeviceMemory& scratch() { return scratch_; }

 private:
  struct OwnStream {
    OwnStream();
    ~OwnStream();
    cudaStream_t handle = nullptr;
  };
  const reference::Problem& problem_;
  OwnStream stream_;
  std::vector<DeviceMemory> buffers_;
  std::vector<void*> bases_;
  DecodeArgs args_;
  ScheduleArgs schedule_args_;
  Plan plan_;
  DeviceMemory schedule_memory_;
  DeviceMemory scratch_;
};

// Schedules, decodes and fetches the results.
testing::AssertionResult run(reference::Problem& problem, std::int32_t num_parts);
// Of fetched results: nothing else was written, and at most max_rows rows match the reference.
testing::AssertionResult matches_reference(const reference::Problem& problem, std::int64_t max_rows = INT64_MAX);
// The same, and no element is NaN, which is what results are filled with before a run.
testing::AssertionResult is_right(const reference::Problem& problem, std::int64_t max_rows = INT64_MAX);
// run(), then is_right().
testing::AssertionResult runs_right(reference::Problem& problem, std::int64_t max_rows = INT64_MAX);

}  // namespace flash_mla::test
