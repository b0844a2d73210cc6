// What the merge of cut units needs to know of a decode.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cuda/combine/partials.h"
#include "schedule/records.h"
#include "schedule/work.h"

namespace flash_mla::cuda {

// See gate.h.
struct GateFormat {
  std::uint64_t tag = 0;  // in its place
  std::int32_t bits = 0;  // of each of the three counts
};

struct MergeParams {
  Work work;
  const PartRecord* parts = nullptr;  // [num_parts + 1]
  Partials partials;
  GateFormat gate;
  RowsView out;  // [.., 512]
  RowsView lse;  // data may be null
};

}  // namespace flash_mla::cuda
