// 8 x 8 matrices of 16-bit elements between registers and shared memory. Lane l gives the address of row l % 8 of
// matrix l / 8 (16 bytes) and holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of each matrix.
#pragma once

#include <cstdint>

#include "cuda/ptx/shared_address.h"

namespace flash_mla::ptx {

__device__ __forceinline__ void store_matrix_x4(void* row, const std::uint32_t (&m)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)), "r"(m[0]),
               "r"(m[1]), "r"(m[2]), "r"(m[3])
               : "memory");
}

// Each matrix is transposed: lane l holds elements 2 (l % 4) and 2 (l % 4) + 1 of its column l / 4.
__device__ __forceinline__ void store_matrix_x4_transposed(void* row, const std::uint32_t (&m)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
               "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
               : "memory");
}

__device__ __forceinline__ void load_matrix_x4(const void* row, std::uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(row))
               : "memory");
}

}  // namespace flash_mla::ptx
