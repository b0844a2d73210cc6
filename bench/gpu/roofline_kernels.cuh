// Kernels that show what the chip can do for MLA's building blocks: HBM reads through the copy engine, L2 reads with
// and without cluster multicast, and the tensor-core rate of MLA's own instruction mix (no softmax, no dependencies).
// They stand alone, so that a ceiling never moves with the library.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "wgmma_gen.h"
#define CK(x)                                                           \
  do {                                                                  \
    cudaError_t e = (x);                                                \
    if (e != cudaSuccess) {                                             \
      printf("CUDA error %s at %d\n", cudaGetErrorString(e), __LINE__); \
      exit(1);                                                          \
    }                                                                   \
  } while (0)

__device__ __forceinline__ uint32_t s32(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void mbar_init(uint64_t* b, int n) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(s32(b)), "r"(n));
}
__device__ __forceinline__ void mbar_expect(uint64_t* b, int n) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(s32(b)), "r"(n) : "memory");
}
__device__ __forceinline__ void mbar_arrive(uint64_t* b) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(s32(b)) : "memory");
}
__device__ __forceinline__ void mbar_wait(uint64_t* b, int ph) {
  asm volatile(
      "{\n.reg .pred p;\nL: mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n@p bra D;\nbra L;\nD:\n}" ::"r"(s32(b)),
      "r"(ph)
      : "memory");
}
__device__ __forceinline__ void bulk(void* dst, const void* src, int n, uint64_t* b) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(s32(dst)),
      "l"(src), "r"(n), "r"(s32(b))
      : "memory");
}
__device__ __forceinline__ void bulk_mc(void* dst, const void* src, int n, uint64_t* b, uint16_t mask) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], "
      "%4;" ::"r"(s32(dst)),
      "l"(src), "r"(n), "r"(s32(b)), "h"(mask)
      : "memory");
}
// ---------- memory: a ring of bulk copies, pages of 73728 bytes (64 tokens x 576 x 2) in a given order
constexpr int PAGE = 73728, CHUNK = 8192, NST = 24;
__global__ void __launch_bounds__(32, 1) ring(const char* base, const int* pages, int npages, int cluster, int mc) {
  extern __shared__ __align__(1024) char sm[];
  __shared__ uint64_t full[NST];
  int rank = cluster == 2 ? (blockIdx.x & 1) : 0;
  if (threadIdx.x == 0)
    for (int i = 0; i < NST; ++i) mbar_init(&full[i], 1);
  asm volatile("fence.mbarrier_init.release.cluster;");
  if (cluster == 2) {
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;");
  }
  if (threadIdx.x == 0) {
    // cluster==2: the pair reads the same pages (both CTAs need every byte). mc: each fetches half and multicasts.
    int unit = cluster == 2 ? blockIdx.x / 2 : blockIdx.x, nunit = cluster == 2 ? gridDim.x / 2 : gridDim.x;
    long n = 0;
    int issued = 0, done = 0;
    for (int p = unit; p < npages; p += nunit)
      for (int c = 0; c < 9; ++c, ++n) {
        int st = issued % NST;
        if (issued >= NST) {
          mbar_wait(&full[st], ((issued / NST) - 1) & 1);
          ++done;
        }
        mbar_expect(&full[st], CHUNK);
        const char* src = base + (long)pages[p] * PAGE + c * CHUNK;
        if (mc)
          bulk_mc(sm + st * CHUNK + rank * (CHUNK / 2), src + rank * (CHUNK / 2), CHUNK / 2, &full[st], 3);
        else
          bulk(sm + st * CHUNK, src, CHUNK, &full[st]);
        ++issued;
      }
    for (; done < issued; ++done) mbar_wait(&full[done % NST], (done / NST) & 1);
  }
  if (cluster == 2) {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;");
  }
}
// ---------- tensor cores
__device__ __forceinline__ uint64_t desc(const void* p, int lbo, int sbo) {
  uint64_t d = 0;
  d |= (uint64_t)((s32(p) & 0x3FFFF) >> 4);
  d |= (uint64_t)((lbo >> 4) & 0x3FFF) << 16;
  d |= (uint64_t)((sbo >> 4) & 0x3FFF) << 32;
  d |= 1ull << 62;
  return d;
}
__device__ __forceinline__ void wfence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wcommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wwait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// The mix of one pair of 64-token tiles: each warpgroup does one QK (64x64x576) and two PV halves (64x256x64).
// QRS: how many of Q's nine 64-wide slices sit in registers. LOAD: 0 none, 1 each CTA fetches its tiles, 2 multicast
// halves. QKN: 64 = QK instructions of n=64 on its own tile. PVRS: 1 local P from registers, remote P from shared
// memory.
template <int QRS, int LOAD>
__global__ void __launch_bounds__(384, 1)
    mla_mix(const char* base, long bytes, int iters, float* sink, const uint32_t* rnd) {
  extern __shared__ __align__(1024) char sm[];
  char* sQ = sm;
  char* sK = sm + 73728;
  char* sP = sm + 73728 * 3;  // 2 K tiles, then two 8 KB P tiles (second overlaps sQ's end)
  __shared__ uint64_t full[2][2], prog[2];
  for (int i = threadIdx.x; i < (73728 * 3 + 8192) / 4; i += blockDim.x) ((uint32_t*)sm)[i] = rnd[i];
  if (threadIdx.x == 0)
    for (int i = 0; i < 2; ++i) {
      mbar_init(&full[i][0], 1);
      mbar_init(&full[i][1], 1);
      mbar_init(&prog[i], 2);
    }
  asm volatile("fence.mbarrier_init.release.cluster;");
  asm volatile("fence.proxy.async.shared::cta;");
  __syncthreads();
  if (LOAD == 2) asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;");
  int wg = threadIdx.x / 128;
  if (wg == 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (LOAD && threadIdx.x == 256) {
      int rank = blockIdx.x & 1;
      long off = (LOAD == 2 ? blockIdx.x / 2 : blockIdx.x) * 1000003L * 128 % (bytes / 2) & ~127L;
      for (int it = 0; it < iters; ++it) {
        int st = it & 1;
        if (it >= 2) mbar_wait(&prog[st], ((it >> 1) - 1) & 1);
        for (int t = 0; t < 2; ++t) {
          mbar_expect(&full[st][t], PAGE);
          for (int c = 0; c < 9; ++c) {
            const char* src = base + off + c * CHUNK;
            char* dst = sK + t * PAGE + c * CHUNK;
            if (LOAD == 2)
              bulk_mc(dst + rank * 4096, src + rank * 4096, 4096, &full[st][t], 3);
            else
              bulk(dst, src, CHUNK, &full[st][t]);
          }
          off += PAGE;
          if (off + PAGE > bytes) off = 0;
        }
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    float o[128], s[32];
    uint32_t q[QRS > 0 ? QRS * 16 : 16];
    uint32_t(&p)[16] = *(uint32_t(*)[16])q;
    for (int i = 0; i < 128; ++i) o[i] = 0;
    for (int i = 0; i < 32; ++i) s[i] = 0;
    for (int i = 0; i < (QRS > 0 ? QRS * 16 : 16); ++i) q[i] = rnd[i * 128 + threadIdx.x];
    uint64_t dQ = desc(sQ, 16, 1024), dK = desc(sK + wg * PAGE, 16, 1024), dP = desc(sP, 16, 1024);
    uint64_t dVl = desc(sK + wg * PAGE + wg * 4 * CHUNK, CHUNK, 1024),
             dVr = desc(sK + (1 - wg) * PAGE + wg * 4 * CHUNK, CHUNK, 1024);
#pragma unroll 1
    for (int it = 0; it < iters; ++it) {
      if (LOAD) {
        mbar_wait(&full[it & 1][0], (it >> 1) & 1);
        mbar_wait(&full[it & 1][1], (it >> 1) & 1);
      }
      wfence();
#pragma unroll
      for (int t = 0; t < 9; ++t)
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (t < QRS)
            wgmma_n64_rs(s, q[(t < QRS ? t : 0) * 16 * (QRS > 0) + k * 4 * (QRS > 0)],
                         q[((t < QRS ? t : 0) * 16 + k * 4 + 1) * (QRS > 0)],
                         q[((t < QRS ? t : 0) * 16 + k * 4 + 2) * (QRS > 0)],
                         q[((t < QRS ? t : 0) * 16 + k * 4 + 3) * (QRS > 0)], dK + (t * CHUNK + k * 32) / 16);
          else
            wgmma_n64_ss(s, dQ + (t * CHUNK + k * 32) / 16, dK + (t * CHUNK + k * 32) / 16);
        }
#pragma unroll
      for (int k = 0; k < 4; ++k)
        wgmma_n256_rs_tb(o, p[k * 4], p[k * 4 + 1], p[k * 4 + 2], p[k * 4 + 3], dVl + k * 2048 / 16);
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma_n256_ss_tb(o, dP + k * 32 / 16, dVr + k * 2048 / 16);
      wcommit();
      wwait<0>();
      if (LOAD && (threadIdx.x & 127) == 0) mbar_arrive(&prog[it & 1]);
    }
    float a = 0;
    for (int i = 0; i < 128; ++i) a += o[i];
    for (int i = 0; i < 32; ++i) a += s[i];
    if (a == 1.2345f) sink[threadIdx.x] = a;
  }
  if (LOAD == 2) asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;");
}
// Instruction rates alone: two warpgroups, one shape
template <int N, int RS, int TB>
__global__ void __launch_bounds__(256, 1) rate(int iters, float* sink, const uint32_t* rnd) {
  extern __shared__ __align__(1024) char sm[];
  for (int i = threadIdx.x; i < 200000 / 4; i += blockDim.x) ((uint32_t*)sm)[i] = rnd[i];
  asm volatile("fence.proxy.async.shared::cta;");
  __syncthreads();
  float d[N / 2];
  for (int i = 0; i < N / 2; ++i) d[i] = 0;
  uint32_t a[16];
  for (int i = 0; i < 16; ++i) a[i] = rnd[i * 128 + threadIdx.x];
  int wg = threadIdx.x / 128;
  uint64_t da = desc(sm + wg * 16384, 16, 1024),
           db = TB ? desc(sm + 40960 + wg * 65536, CHUNK, 1024) : desc(sm + 40960 + wg * 65536, 16, 1024);
  for (int it = 0; it < iters; ++it) {
    wfence();
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      uint64_t b = TB ? db + (k % 4) * 2048 / 16 : db + ((k % 4) * 32) / 16;
      if constexpr (RS) {
        if constexpr (N == 64) {
          if constexpr (TB)
            wgmma_n64_rs_tb(d, a[k % 4 * 4], a[k % 4 * 4 + 1], a[k % 4 * 4 + 2], a[k % 4 * 4 + 3], b);
          else
            wgmma_n64_rs(d, a[k % 4 * 4], a[k % 4 * 4 + 1], a[k % 4 * 4 + 2], a[k % 4 * 4 + 3], b);
        } else if constexpr (N == 128)
          wgmma_n128_rs(d, a[k % 4 * 4], a[k % 4 * 4 + 1], a[k % 4 * 4 + 2], a[k % 4 * 4 + 3], b);
        else {
          if constexpr (TB)
            wgmma_n256_rs_tb(d, a[k % 4 * 4], a[k % 4 * 4 + 1], a[k % 4 * 4 + 2], a[k % 4 * 4 + 3], b);
          else
            wgmma_n256_rs(d, a[k % 4 * 4], a[k % 4 * 4 + 1], a[k % 4 * 4 + 2], a[k % 4 * 4 + 3], b);
        }
      } else {
        uint64_t A = da + ((k % 4) * 32 + (k / 4 % 2) * 8192) / 16;
        if constexpr (N == 64) {
          if constexpr (TB)
            wgmma_n64_ss_tb(d, A, b);
          else
            wgmma_n64_ss(d, A, b);
        } else if constexpr (N == 128)
          wgmma_n128_ss(d, A, b);
        else {
          if constexpr (TB)
            wgmma_n256_ss_tb(d, A, b);
          else
            wgmma_n256_ss(d, A, b);
        }
      }
    }
    wcommit();
    wwait<0>();
  }
  float x = 0;
  for (int i = 0; i < N / 2; ++i) x += d[i];
  if (x == 1.2345f) sink[threadIdx.x] = x;
}
