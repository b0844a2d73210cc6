// The choice of the backend, and the CPU's memory; see device.h.
#include "support/device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "flash_mla/info.h"
#include "support/device_cuda.h"
#include "support/errors.h"
#include "support/human.h"

namespace flash_mla::tools {
namespace {

class CpuRecording final : public Recording {
 public:
  explicit CpuRecording(RecordedWork work) : work_(std::move(work)) {}
  void run() override {
    marks_.clear();
    work_([this] { marks_.push_back(std::chrono::steady_clock::now()); });
  }
  [[nodiscard]] double seconds_between(std::size_t first_mark, std::size_t last_mark) const override {
    return std::chrono::duration<double>(marks_.at(last_mark) - marks_.at(first_mark)).count();
  }

 private:
  RecordedWork work_;
  std::vector<std::chrono::steady_clock::time_point> marks_;
};

class CpuContext final : public DeviceContext {
 public:
  [[nodiscard]] Device device() const noexcept override { return {}; }
  [[nodiscard]] Stream stream() const noexcept override { return {}; }
  [[nodiscard]] void* allocate(std::int64_t bytes) override {
    constexpr std::size_t kAlignment = 4096;
    const std::size_t rounded = (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
    void* data = std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded);
    if (data == nullptr) throw RunError(fmt::format("no memory for {}", human_bytes(static_cast<double>(bytes))));
    return data;
  }
  void release(void* data) noexcept override { std::free(data); }
  void upload(void* to, const void* from, std::int64_t bytes) override {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
  void download(void* to, const void* from, std::int64_t bytes) override {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
  void copy(void* to, const void* from, std::int64_t bytes) override { upload(to, from, bytes); }
  std::unique_ptr<Recording> record(RecordedWork work) override {
    return std::make_unique<CpuRecording>(std::move(work));
  }
  void synchronize() override {}
};

const BackendInfo* find_backend(const std::string& name) {
  for (const BackendInfo& backend : backends()) {
    if (name == backend.name) return &backend;
  }
  return nullptr;
}

}  // namespace

BackendChoice choose_backend(const std::string& name) {
  if (name.empty()) {
    const BackendInfo* cuda = find_backend("cuda");
    if (cuda != nullptr && cuda->available) return {"cuda", "a GPU is there and --backend was not given"};
    const std::string reason = cuda == nullptr ? "this build has no CUDA backend" : cuda->reason;
    return {"cpu", fmt::format("--backend was not given, and CUDA cannot run: {}", reason)};
  }
  const BackendInfo* backend = find_backend(name);
  if (backend == nullptr) {
    throw InputError(fmt::format("--backend {}: this build has no such backend; `flash-mla info` lists them", name));
  }
  if (!backend->available) throw InputError(fmt::format("--backend {}: {}", name, backend->reason));
  return {name, "--backend asked for it"};
}

std::unique_ptr<DeviceContext> open_device(const std::string& name) {
  if (choose_backend(name).name == "cuda") return open_cuda_device(0);
  return std::make_unique<CpuContext>();
}

}  // namespace flash_mla::tools
