// Storage on a device with memory of its own, which host memory plays here: what is uploaded, in which runs, and that
// failures are passed on and memory is given back.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "cache/page_storage.h"

namespace flash_mla {
namespace {

class HostAsDevice final : public Backend {
 public:
  mutable std::vector<std::int64_t> uploads;              // numbers in each
  mutable std::vector<std::vector<std::int64_t>> copies;  // page pairs of each call
  mutable int live_allocations = 0;
  int fail_allocation = -1, fail_upload = -1;  // index of the call

  Result<void*> allocate(std::int64_t bytes, Device) const noexcept override {
    if (fail_allocation == live_allocations) return Status(StatusCode::out_of_memory, "told to fail");
    ++live_allocations;
    return std::calloc(bytes, 1);
  }
  void deallocate(void* data, Device) const noexcept override {
    --live_allocations;
    std::free(data);
  }
  Status copy_to_device(void* to, const void* from, std::int64_t bytes, Device, Stream) const noexcept override {
    if (fail_upload == static_cast<int>(uploads.size())) return Status(StatusCode::device_error, "told to fail");
    uploads.push_back(bytes / 8);
    std::memcpy(to, from, bytes);
    return {};
  }
  Status copy_pages(const CopyPagesProblem& p, Device, Stream) const noexcept override {
    copies.emplace_back(p.page_pairs, p.page_pairs + 2 * p.pairs);
    return {};
  }

  BackendInfo info() const noexcept override { return {}; }
  std::span<const KernelInfo> kernels() const noexcept override { return {}; }
  Result<DeviceInfo> device_info(int) const noexcept override { return DeviceInfo{}; }
  Result<PlanTuning> tune(const PlanConfig&) const noexcept override { return PlanTuning{}; }
  Status schedule(const Plan&, const BatchView&, void*, Stream) const noexcept override { return {}; }
  Status num_splits(const Plan&, const void*, std::int32_t, std::int32_t*, Stream) const noexcept override {
    return {};
  }
  Status decode(const Plan&, const DecodeProblem&, const void*, void*, Stream) const noexcept override { return {}; }
  Status merge(const MergeProblem&, Device, Stream) const noexcept override { return {}; }
  Status append(const AppendProblem&, Device, Stream) const noexcept override { return {}; }
};

constexpr PagedKvCacheConfig kConfig = {
    .device = {DeviceType::cuda, 0}, .num_layers = 3, .num_pages = 5000, .page_size = 16};

TEST(DeviceStorage, PagePairsAreUploadedOnceForAllLayers) {
  HostAsDevice backend;
  const auto storage = *make_backend_storage({.device = kConfig.device, .num_layers = 3, .num_pages = 8}, backend);
  const std::vector<std::int64_t> pairs = {0, 4, 1, 5};
  ASSERT_TRUE(storage->copy_pages(pairs, {}).ok());
  EXPECT_EQ(backend.uploads, (std::vector<std::int64_t>{4}));
  EXPECT_EQ(backend.copies, (std::vector<std::vector<std::int64_t>>{pairs, pairs, pairs}));
  ASSERT_TRUE(storage->copy_pages(pairs, {}).ok());
  EXPECT_EQ(backend.uploads.size(), 1u);  // they lie there already
  const std::vector<std::int64_t> others = {0, 4, 1, 6};
  ASSERT_TRUE(storage->copy_pages(others, {}).ok());
  EXPECT_EQ(backend.uploads.size(), 2u);
  EXPECT_EQ(backend.copies.back(), others);
}

TEST(DeviceStorage, ManyPairsGoInRuns) {
  HostAsDevice backend;
  const auto storage = *make_backend_storage(kConfig, backend);
  std::vector<std::int64_t> pairs(5000);
  std::iota(pairs.begin(), pairs.end(), 0);
  ASSERT_TRUE(storage->copy_pages(pairs, {}).ok());
  EXPECT_EQ(backend.uploads, (std::vector<std::int64_t>{kMaxIndices, 5000 - kMaxIndices}));
  ASSERT_EQ(backend.copies.size(), 6u);
  std::vector<std::int64_t> copied = backend.copies[2];
  copied.insert(copied.end(), backend.copies[5].begin(), backend.copies[5].end());
  EXPECT_EQ(copied, pairs);
}

TEST(DeviceStorage, AFailedUploadIsPassedOnAndForgotten) {
  HostAsDevice backend;
  const auto storage = *make_backend_storage(kConfig, backend);
  const std::vector<std::int64_t> pairs = {0, 1};
  backend.fail_upload = 0;
  EXPECT_EQ(storage->copy_pages(pairs, {}).code(), StatusCode::device_error);
  EXPECT_TRUE(backend.copies.empty());
  backend.fail_upload = -1;
  EXPECT_TRUE(storage->copy_pages(pairs, {}).ok());
  EXPECT_EQ(backend.uploads.size(), 1u);
}

TEST(DeviceStorage, MemoryIsGivenBack) {
  HostAsDevice backend;
  for (int failing : {-1, 0, 1}) {
    backend.fail_allocation = failing;
    EXPECT_EQ(make_backend_storage(kConfig, backend).ok(), failing == -1);
    EXPECT_EQ(backend.live_allocations, 0);
  }
}

}  // namespace
}  // namespace flash_mla
