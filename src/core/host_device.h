// Marks a function that g++ and nvcc both compile, the latter for the device as well.
#pragma once

#ifdef __CUDACC__
#define FLASH_MLA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define FLASH_MLA_HOST_DEVICE inline
#endif

// Keeps a loop a loop in device code that runs once: there, fetching instructions costs more than branches.
#ifdef __CUDACC__
#define FLASH_MLA_NO_UNROLL _Pragma("unroll 1")
#else
#define FLASH_MLA_NO_UNROLL
#endif
