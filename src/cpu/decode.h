// The CPU backend's decode: parts run by OpenMP threads, then the splits merged.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cpu/products.h"
#include "flash_mla/plan.h"

namespace flash_mla::cpu {

// Rows that one tile takes of `rows` packed rows of a request: balanced, a multiple of kRowGranule, <= kMaxRows.
std::int32_t choose_rows_per_unit(std::int64_t rows);

// Scratch for plans of num_parts parts.
std::int64_t scratch_bytes(DType dtype, std::int32_t num_parts, std::int32_t rows_per_unit);

// May throw dnnl::error and std::bad_alloc.
void decode(const Plan& plan, const DecodeProblem& problem, const void* schedule_memory, void* scratch);

}  // namespace flash_mla::cpu
