// A CUDA device through the CUDA runtime; see device_cuda.h.
#include "support/device_cuda.h"

#include <utility>
#include <vector>

#include "support/errors.h"

#if FLASH_MLA_WITH_CUDA
#include <cuda_runtime_api.h>

namespace flash_mla::tools {
namespace {

void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw RunError(fmt::format("{}: {}", call, cudaGetErrorString(error)));
}

// One graph. Marks are events that it records.
class CudaRecording final : public Recording {
 public:
  CudaRecording(cudaStream_t stream, const RecordedWork& work) : stream_(stream) {
    try {
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
      try {
        work([this] { mark(); });
      } catch (...) {
        end_capture(nullptr);
        throw;
      }
      cudaGraph_t graph = nullptr;
      check(end_capture(&graph), "cudaStreamEndCapture");
      const cudaError_t error = cudaGraphInstantiate(&graph_, graph, 0);
      static_cast<void>(cudaGraphDestroy(graph));
      check(error, "cudaGraphInstantiate");
    } catch (...) {
      release();
      throw;
    }
  }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;
  ~CudaRecording() override { release(); }

  void run() override {
    check(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  [[nodiscard]] double seconds_between(std::size_t first_mark, std::size_t last_mark) const override {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, marks_.at(first_mark), marks_.at(last_mark)), "cudaEventElapsedTime");
    return ms * 1e-3;
  }

 private:
  void mark() {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "cudaEventCreate");
    marks_.push_back(event);
    check(cudaEventRecordWithFlags(event, stream_, cudaEventRecordExternal), "cudaEventRecordWithFlags");
  }
  cudaError_t end_capture(cudaGraph_t* graph) {
    cudaGraph_t unwanted = nullptr;
    const cudaError_t error = cudaStreamEndCapture(stream_, graph != nullptr ? graph : &unwanted);
    if (unwanted != nullptr) static_cast<void>(cudaGraphDestroy(unwanted));
    return error;
  }
  void release() noexcept {
    if (graph_ != nullptr) static_cast<void>(cudaGraphExecDestroy(graph_));
    for (cudaEvent_t event : marks_) static_cast<void>(cudaEventDestroy(event));
  }

  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
  std::vector<cudaEvent_t> marks_;
};

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
  void copy(void* to, const void* from, std::int64_t bytes) override {
    const auto size = static_cast<std::size_t>(bytes);
    check(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream_), "cudaMemcpyAsync");
  }
  std::unique_ptr<Recording> record(RecordedWork work) override {
    return std::make_unique<CudaRecording>(stream_, work);
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
