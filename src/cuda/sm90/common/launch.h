// The host's side of the decode kernels: which one a plan gets, tensor maps, parameters, launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/problem.h"
#include "cuda/kernel_launch.h"
#include "flash_mla/status.h"

namespace flash_mla::sm90 {

// A compiled variant, as its translation unit describes it.
struct DecodeKernel {
  const void* function = nullptr;
  cuda::KernelHandles* handles = nullptr;
  int threads = 0;
  int shared_memory_bytes = 0;
  int rows_per_thread_block = 0;
  int query_slices_per_box = 0;  // latent ones, where there is one kv head
};

#define FLASH_MLA_VARIANT(name, dtype, element) \
  DecodeKernel dense_decode_##name();           \
  DecodeKernel few_rows_decode_##name(std::int64_t rows, bool small_steps);
#include "cuda/variants.def"
#undef FLASH_MLA_VARIANT

// The kernel for units of so many packed rows, of which a thread block takes rows_per_thread_block. `small_steps`: the
// plan's units are so few that each is in many parts.
[[nodiscard]] DecodeKernel find_kernel(DType dtype, std::int64_t rows, bool small_steps) noexcept;

// How a plan cuts steps.
struct StepShape {
  std::int32_t num_parts = 0;
  std::int32_t rows_per_unit = 0;
  bool small_steps = false;
};

// Enqueues the decode of all parts on `device`: num_parts * rows_per_unit / rows_per_thread_block thread blocks. Whole
// units are written to problem.out and problem.lse, split ones as partials to scratch (combine/partials.h).
[[nodiscard]] Status launch_decode(const DecodeProblem& problem, const StepShape& step, const void* schedule_memory,
                                   void* scratch, int device, cudaStream_t stream) noexcept;

}  // namespace flash_mla::sm90
