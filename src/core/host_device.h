// Marks a function that g++ and nvcc both compile, the latter for the device as well.
#pragma once

#ifdef __CUDACC__
#define FLASH_MLA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define FLASH_MLA_HOST_DEVICE inline
#endif
