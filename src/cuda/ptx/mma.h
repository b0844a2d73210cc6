// Warp matrix product: d [16 x 8] f32 += a [16 x 16] b [16 x 8]; a in the layout of ldmatrix.x4, d[2 h + e] of lane l
// is row l / 4 + 8 h, column 2 (l mod 4) + e, b[g] of lane l holds rows 8 g + 2 (l mod 4) + {0, 1} of column l / 4.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace flash_mla::ptx {

template <class Element>
__device__ __forceinline__ void warp_mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);

#define FLASH_MLA_WARP_MMA(element, text)                                                     \
  template <>                                                                                 \
  __device__ __forceinline__ void warp_mma<element>(float(&d)[4], const std::uint32_t(&a)[4], \
                                                    const std::uint32_t(&b)[2]) {             \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." text "." text                       \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"       \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));         \
  }

FLASH_MLA_WARP_MMA(__nv_bfloat16, "bf16")
FLASH_MLA_WARP_MMA(__half, "f16")
#undef FLASH_MLA_WARP_MMA

}  // namespace flash_mla::ptx
