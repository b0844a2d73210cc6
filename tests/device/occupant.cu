// See occupant.h.
#include "device/gpu.h"
#include "device/occupant.h"

namespace flash_mla::test {
namespace {

constexpr int kSharedMemoryBytes = 200 << 10;

__global__ void occupy(int* words) {
  extern __shared__ char room[];
  if (threadIdx.x != 0) return;
  room[0] = 0;
  atomicAdd_system(words, 1);
  while (*const_cast<volatile int*>(words + 1) == 0) __nanosleep(1000);
}

}  // namespace

int Occupant::multiprocessors() {
  int device = 0, count = 0;
  FLASH_MLA_REQUIRE(cudaGetDevice(&device));
  FLASH_MLA_REQUIRE(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

Occupant::Occupant(int multiprocessors) {
  FLASH_MLA_REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  FLASH_MLA_REQUIRE(cudaMallocHost(reinterpret_cast<void**>(&words_), 2 * sizeof(int)));
  words_[0] = words_[1] = 0;
  FLASH_MLA_REQUIRE(cudaFuncSetAttribute(reinterpret_cast<const void*>(&occupy),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedMemoryBytes));
  occupy<<<multiprocessors, 32, kSharedMemoryBytes, stream_>>>(words_);
  FLASH_MLA_REQUIRE(cudaGetLastError());
  while (*const_cast<volatile int*>(words_) < multiprocessors) {
  }
}

Occupant::~Occupant() {
  *const_cast<volatile int*>(words_ + 1) = 1;
  cudaStreamSynchronize(stream_);
  cudaFreeHost(words_);
  cudaStreamDestroy(stream_);
}

}  // namespace flash_mla::test
