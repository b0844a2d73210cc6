// A backend that computes nothing: it makes schedules with the library's own scheduler on the host, and counts what
// else reaches it. As a CUDA device it touches no memory at all.
#pragma once

#include <cstdint>
#include <span>

#include "core/backend.h"

namespace flash_mla::test {

class FakeBackend final : public Backend {
 public:
  explicit FakeBackend(DeviceType type) : type_(type) {}

  PlanTuning tuning = {
      .num_parts = 3, .rows_per_unit = 64, .cost_fixed = 4, .cost_block = 1, .cost_merge = 2, .scratch_bytes = 1 << 20};
  bool available = true;
  mutable int calls = 0;  // schedule and decode
  mutable DecodeProblem last_problem;
  mutable BatchView last_batch;

  BackendInfo info() const noexcept override;
  std::span<const KernelInfo> kernels() const noexcept override { return {}; }
  Result<DeviceInfo> device_info(int) const noexcept override { return DeviceInfo{}; }
  Result<PlanTuning> tune(const PlanConfig& config) const noexcept override;
  Status schedule(const Plan& plan, const BatchView& batch, void* memory, Stream stream) const noexcept override;
  Status num_splits(const Plan& plan, const void* memory, std::int32_t batch, std::int32_t* num_splits,
                    Stream stream) const noexcept override;
  Status decode(const Plan& plan, const DecodeProblem& problem, const void* memory, void* scratch,
                Stream stream) const noexcept override;
  Status merge(const MergeProblem&, Device, Stream) const noexcept override { return {}; }
  Status append(const AppendProblem&, Device, Stream) const noexcept override { return {}; }
  Status copy_pages(const CopyPagesProblem&, Device, Stream) const noexcept override { return {}; }
  Result<void*> allocate(std::int64_t, Device) const noexcept override { return static_cast<void*>(nullptr); }
  void deallocate(void*, Device) const noexcept override {}
  Status copy_to_device(void*, const void*, std::int64_t, Device, Stream) const noexcept override { return {}; }

 private:
  DeviceType type_;
};

// Where CUDA tensors of the tests claim to lie: reading it crashes.
inline void* device_address(std::uintptr_t offset) {
  return reinterpret_cast<void*>((std::uintptr_t{1} << 46) + offset);
}

}  // namespace flash_mla::test
