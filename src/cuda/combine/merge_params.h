// What the merge of cut units needs to know of a decode.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cuda/combine/partials.h"
#include "schedule/records.h"
#include "schedule/work.h"

namespace flash_mla::cuda {

// A gate's word (gate.h, roll_call.h): three counts of thread blocks, a flag, and the launch's tag above them.
inline constexpr int kGateCountBits = 11, kRollClosedBit = 3 * kGateCountBits, kGateTagBit = kRollClosedBit + 1;
inline constexpr std::int32_t kMostParts = (1 << kGateCountBits) - 1;

struct MergeParams {
  Work work;
  const PartRecord* parts = nullptr;  // [num_parts + 1]
  Partials partials;
  std::uint64_t launch_tag = 0;  // from kGateTagBit on
  RowsView out;                  // [.., 512]
  RowsView lse;                  // data may be null
};

}  // namespace flash_mla::cuda
