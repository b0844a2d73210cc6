// Every rule about the arguments of a public call, checked once; what passes becomes the backends' form of the problem
// (core/problem.h). The rules are listed in docs/conventions.md, "Arguments". Nothing is written but the last
// parameter, and nothing is allocated except where said, so a call on a GPU pays well under a microsecond: what lies in
// the device's memory (lengths, block table, schedule) is only checked on the CPU.
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "core/problem.h"
#include "flash_mla/decode.h"
#include "flash_mla/paged_kv_cache.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

Status validate_plan(const PlanConfig& config) noexcept;

// `name` is "device" or "config.device"; for what only the backend knows: availability and the number of devices.
Status validate_device(Device device, const char* name, const Backend& backend) noexcept;

Status validate_schedule(const Plan& plan, const ScheduleArgs& args, const MemoryView& schedule_memory,
                         BatchView* batch) noexcept;

Status validate_decode(const Plan& plan, const DecodeArgs& args, const MemoryView& schedule_memory,
                       const MemoryView& scratch, DecodeProblem* problem) noexcept;

Status validate_num_splits(const Plan& plan, const MemoryView& schedule_memory, const TensorView& counts) noexcept;

Status validate_merge(const MergeArgs& args, MergeProblem* problem) noexcept;

Status validate_append(const AppendArgs& args, AppendProblem* problem) noexcept;

// Allocates on the CPU, where it looks for pages that occur twice.
Status validate_copy_pages(const TensorView& cache, const TensorView& page_pairs, CopyPagesProblem* problem) noexcept;

}  // namespace flash_mla
