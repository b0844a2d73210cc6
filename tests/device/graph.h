// A CUDA graph of what a function enqueues on a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "device/gpu.h"

namespace flash_mla::test {

class Graph {
 public:
  template <class Enqueue>
  Graph(cudaStream_t stream, Enqueue enqueue) : stream_(stream) {
    cudaGraph_t graph = nullptr;
    FLASH_MLA_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    enqueue();
    FLASH_MLA_REQUIRE(cudaStreamEndCapture(stream, &graph));
    FLASH_MLA_REQUIRE(cudaGraphGetNodes(graph, nullptr, &nodes_));
    FLASH_MLA_REQUIRE(cudaGraphInstantiate(&exec_, graph, 0));
    FLASH_MLA_REQUIRE(cudaGraphDestroy(graph));
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { cudaGraphExecDestroy(exec_); }

  [[nodiscard]] std::size_t nodes() const { return nodes_; }
  void launch() const { FLASH_MLA_REQUIRE(cudaGraphLaunch(exec_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t exec_ = nullptr;
  std::size_t nodes_ = 0;
};

}  // namespace flash_mla::test
