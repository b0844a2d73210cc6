// Operands of wgmma in shared memory, for tests of products: a [64 x 64] and b [64 x N], laid out as the kernels do.
#pragma once

#include <cstdint>

#include "cuda/ptx/fence.h"
#include "cuda/ptx/shared_address.h"
#include "cuda/ptx/wgmma.h"
#include "cuda/tile/descriptor.h"
#include "cuda/tile/swizzle.h"

namespace flash_mla::test {

constexpr int kSlice = 64 * 64;  // elements
constexpr int kSliceBytes = kSlice * 2;
constexpr int kProductSteps = 64 / tile::kStepK;

template <class Element, int N, ptx::Major BMajor, ptx::Major AMajor>
class Operands {
 public:
  static constexpr int kBytes = kSliceBytes + N * 64 * 2;

  // By all threads: b is given as rows of n (k-major) or rows of k (n-major), a as rows of m. In slices, a's rows are
  // those of m (k-major) or of k (m-major). `memory` is aligned to 1024 bytes.
  __device__ Operands(unsigned char* memory, const Element* a, const Element* b) : a_(memory) {
    unsigned char* const b_slices = memory + kSliceBytes;
    for (int i = threadIdx.x; i < kSlice; i += blockDim.x) {
      const int m = i / 64, k = i % 64;
      *reinterpret_cast<Element*>(a_ + (kAKMajor ? tile::swizzled_bytes(m, k) : tile::swizzled_bytes(k, m))) = a[i];
    }
    for (int i = threadIdx.x; i < kBRows * kBSlices * 64; i += blockDim.x) {
      const int row = i / (kBSlices * 64), column = i % (kBSlices * 64);
      *reinterpret_cast<Element*>(b_slices + column / 64 * kBSliceBytes + tile::swizzled_bytes(row, column % 64)) =
          b[i];
    }
    const std::uint32_t a_address = ptx::shared_address(a_), b_address = ptx::shared_address(b_slices);
    a_descriptor_ = kAKMajor ? tile::k_major(a_address) : tile::mn_major(a_address, kSliceBytes);
    b_descriptor_ = kBKMajor ? tile::k_major(b_address) : tile::mn_major(b_address, kBSliceBytes);
    ptx::fence_async_shared();
    __syncthreads();
  }

  [[nodiscard]] __device__ const unsigned char* a_slice() const { return a_; }
  // Of the 16 k of a step.
  [[nodiscard]] __device__ std::uint64_t a(int step) const {
    return tile::advance(a_descriptor_, kAKMajor ? tile::k_major_step_bytes(step) : tile::mn_major_step_bytes(step));
  }
  [[nodiscard]] __device__ std::uint64_t b(int step) const {
    return tile::advance(b_descriptor_, kBKMajor ? tile::k_major_step_bytes(step) : tile::mn_major_step_bytes(step));
  }

 private:
  static constexpr bool kAKMajor = AMajor == ptx::Major::k, kBKMajor = BMajor == ptx::Major::k;
  static constexpr int kBRows = kBKMajor ? N : 64, kBSlices = kBKMajor ? 1 : N / 64, kBSliceBytes = kBRows * 128;

  unsigned char* a_;
  std::uint64_t a_descriptor_, b_descriptor_;
};

// d = a b, both from shared memory.
template <class Element, int N, ptx::Major BMajor, ptx::Major AMajor>
__device__ __forceinline__ void multiply_from_shared(const Operands<Element, N, BMajor, AMajor>& operands,
                                                     float (&d)[N / 2]) {
  ptx::warpgroup_fence();
#pragma unroll
  for (int step = 0; step < kProductSteps; ++step) {
    ptx::Wgmma<Element, N, BMajor, AMajor>::mma(d, operands.a(step), operands.b(step), step > 0);
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
}

}  // namespace flash_mla::test
