// Memory of a CUDA device through the CUDA runtime; see device_cuda.h.
#include "support/device_cuda.h"

#include "support/errors.h"

#if FLASH_MLA_WITH_CUDA
#include <cuda_runtime_api.h>

namespace flash_mla::tools {
namespace {

void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw RunError(fmt::format("{}: {}", call, cudaGetErrorString(error)));
}

class CudaContext final : public DeviceContext {
 public:
  explicit CudaContext(int index) : index_(index) {
    check(cudaSetDevice(index), "cudaSetDevice");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~CudaContext() override { static_cast<void>(cudaStreamDestroy(stream_)); }

  [[nodiscard]] Device device() const noexcept override { return {DeviceType::cuda, index_}; }
  [[nodiscard]] Stream stream() const noexcept override { return {stream_}; }
  [[nodiscard]] void* allocate(std::int64_t bytes) override {
    void* data = nullptr;
    check(cudaMalloc(&data, static_cast<std::size_t>(bytes > 0 ? bytes : 1)), "cudaMalloc");
    return data;
  }
  void release(void* data) noexcept override { static_cast<void>(cudaFree(data)); }
  void upload(void* to, const void* from, std::int64_t bytes) override {
    const auto size = static_cast<std::size_t>(bytes);
    check(cudaMemcpyAsync(to, from, size, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
    synchronize();
  }
  void download(void* to, const void* from, std::int64_t bytes) override {
    const auto size = static_cast<std::size_t>(bytes);
    check(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
    synchronize();
  }
  void synchronize() override { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  int index_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::unique_ptr<DeviceContext> open_cuda_device(int index) { return std::make_unique<CudaContext>(index); }

}  // namespace flash_mla::tools
#else
namespace flash_mla::tools {

std::unique_ptr<DeviceContext> open_cuda_device(int) { throw RunError("this build has no CUDA backend"); }

}  // namespace flash_mla::tools
#endif
