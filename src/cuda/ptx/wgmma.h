// Warpgroup matrix products (wgmma): d [64 x n] f32 += a [64 x 16] b [16 x n], a and b bf16 or f16.
//
// Asynchronous: registers of d and a may not be touched between mma and the wait that covers it. The pattern is
//   warpgroup_fence(); mma...; mma...; warpgroup_commit(); ...; warpgroup_wait<groups still allowed in flight>();
// a comes from shared memory (through a descriptor of tile/descriptor.h; K-major or M-major) or from registers (4 a
// thread, the ldmatrix layout); b from shared memory, K-major ("rows are columns of b") or N-major (transposed).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace flash_mla::ptx {

enum class Major : int { k = 0, mn = 1 };  // the index that is contiguous in shared memory: k, or m of a and n of b

// Register writes before it are seen by the products after it.
__device__ __forceinline__ void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int InFlight>
__device__ __forceinline__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(InFlight) : "memory");
}

// mma(d, a, b, accumulate): d is float[n / 2] of each thread; accumulate false starts from zero.
template <class Element, int N, Major BMajor, Major AMajor = Major::k>
struct Wgmma;

// Operand lists of n / 2 accumulators as PTX text and as asm constraints.
#define FLASH_MLA_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define FLASH_MLA_D16(i) FLASH_MLA_D4(i), FLASH_MLA_D4(i + 4), FLASH_MLA_D4(i + 8), FLASH_MLA_D4(i + 12)
#define FLASH_MLA_D_OPERANDS_16 FLASH_MLA_D4(0), FLASH_MLA_D4(4)
#define FLASH_MLA_D_TEXT_16 "%0, %1, %2, %3, %4, %5, %6, %7"
#define FLASH_MLA_D_OPERANDS_32 FLASH_MLA_D16(0)
#define FLASH_MLA_D_TEXT_32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define FLASH_MLA_D_OPERANDS_64 FLASH_MLA_D16(0), FLASH_MLA_D16(16)
#define FLASH_MLA_D_TEXT_64                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FLASH_MLA_D_OPERANDS_128 FLASH_MLA_D16(0), FLASH_MLA_D16(16), FLASH_MLA_D16(32), FLASH_MLA_D16(48)
#define FLASH_MLA_D_TEXT_128                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FLASH_MLA_D_OPERANDS_256                                                                                   \
  FLASH_MLA_D16(0), FLASH_MLA_D16(16), FLASH_MLA_D16(32), FLASH_MLA_D16(48), FLASH_MLA_D16(64), FLASH_MLA_D16(80), \
      FLASH_MLA_D16(96), FLASH_MLA_D16(112)
#define FLASH_MLA_D_TEXT_256                                                                     \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// r0 ..: numbers of the operands that follow the accumulators.
#define FLASH_MLA_WGMMA(element, text, n, r0, r1, r2, r3, r4, r5, r6)                                                  \
  template <Major BMajor, Major AMajor>                                                                                \
  struct Wgmma<element, n, BMajor, AMajor> {                                                                           \
    static __device__ __forceinline__ void mma(float (&d)[n / 2], std::uint64_t a, std::uint64_t b, bool accumulate) { \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r2                                                            \
                   ", 0;\n"                                                                                            \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." text "." text " {" FLASH_MLA_D_TEXT_##n           \
                   "}, "                                                                                               \
                   "%" #r0 ", %" #r1 ", p, 1, 1, %" #r3 ", %" #r4 ";\n}"                                               \
                   : FLASH_MLA_D_OPERANDS_##n                                                                          \
                   : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(AMajor)),                 \
                     "n"(static_cast<int>(BMajor)));                                                                   \
    }                                                                                                                  \
    static __device__ __forceinline__ void mma(float (&d)[n / 2], const std::uint32_t (&a)[4], std::uint64_t b,        \
                                               bool accumulate) {                                                      \
      static_assert(AMajor == Major::k, "registers hold rows of a");                                                   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r5                                                            \
                   ", 0;\n"                                                                                            \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." text "." text " {" FLASH_MLA_D_TEXT_##n           \
                   "}, "                                                                                               \
                   "{%" #r0 ", %" #r1 ", %" #r2 ", %" #r3 "}, %" #r4 ", p, 1, 1, %" #r6 ";\n}"                         \
                   : FLASH_MLA_D_OPERANDS_##n                                                                          \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)),            \
                     "n"(static_cast<int>(BMajor)));                                                                   \
    }                                                                                                                  \
  }

FLASH_MLA_WGMMA(__nv_bfloat16, "bf16", 16, 8, 9, 10, 11, 12, 13, 14);
FLASH_MLA_WGMMA(__half, "f16", 16, 8, 9, 10, 11, 12, 13, 14);
FLASH_MLA_WGMMA(__nv_bfloat16, "bf16", 32, 16, 17, 18, 19, 20, 21, 22);
FLASH_MLA_WGMMA(__half, "f16", 32, 16, 17, 18, 19, 20, 21, 22);
FLASH_MLA_WGMMA(__nv_bfloat16, "bf16", 64, 32, 33, 34, 35, 36, 37, 38);
FLASH_MLA_WGMMA(__half, "f16", 64, 32, 33, 34, 35, 36, 37, 38);
FLASH_MLA_WGMMA(__nv_bfloat16, "bf16", 128, 64, 65, 66, 67, 68, 69, 70);
FLASH_MLA_WGMMA(__half, "f16", 128, 64, 65, 66, 67, 68, 69, 70);
FLASH_MLA_WGMMA(__nv_bfloat16, "bf16", 256, 128, 129, 130, 131, 132, 133, 134);
FLASH_MLA_WGMMA(__half, "f16", 256, 128, 129, 130, 131, 132, 133, 134);

#undef FLASH_MLA_WGMMA
#undef FLASH_MLA_D_TEXT_16
#undef FLASH_MLA_D_OPERANDS_16
#undef FLASH_MLA_D_TEXT_32
#undef FLASH_MLA_D_OPERANDS_32
#undef FLASH_MLA_D_TEXT_64
#undef FLASH_MLA_D_OPERANDS_64
#undef FLASH_MLA_D_TEXT_128
#undef FLASH_MLA_D_OPERANDS_128
#undef FLASH_MLA_D_TEXT_256
#undef FLASH_MLA_D_OPERANDS_256
#undef FLASH_MLA_D16
#undef FLASH_MLA_D4

}  // namespace flash_mla::ptx
