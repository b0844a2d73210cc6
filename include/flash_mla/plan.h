// plan(): decides, from upper bounds and the device alone, how decoding will be cut up and how much memory it takes.
// A plan holds no tensor and no length, so one plan serves every step of an engine and every replay of a CUDA graph.
#pragma once

#include <cstdint>

#include "flash_mla/export.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

inline constexpr int kLatentDim = 512;                  // c_kv; also the width of an output row
inline constexpr int kRopeDim = 64;                     // k_pe
inline constexpr int kHeadDim = kLatentDim + kRopeDim;  // width of a query row and of a cached token
inline constexpr int kBlockTokens = 64;                 // the scheduler's unit of work along a sequence

// Upper bounds and constants of the problem. Lengths are no part of it.
struct PlanConfig {
  Device device = {};
  DType dtype = DType::bf16;      // q, cache and out: bf16, f16; f32 on the CPU only
  std::int32_t max_batch = 0;     // requests in a step, at most; >= 0
  std::int64_t max_total_q = 0;   // query tokens of a step summed over requests, at most; 0: max_batch * max_seqlen_q
  std::int32_t max_seqlen_q = 1;  // query tokens of one request, at most (s_q of a uniform batch)
  std::int32_t num_heads_q = 0;   // a multiple of num_heads_kv
  std::int32_t num_heads_kv = 1;
  std::int32_t page_size = 64;  // tokens a page: 16, 32, 64 or a multiple of 64
  bool causal = true;           // bottom-right aligned: query j of s_q sees tokens t <= length - s_q + j
  // Workers that share a step, on a GPU at most 2047; 0: one per CPU thread, or what fills the GPU.
  std::int32_t num_parts = 0;
};

class Backend;

// A small copyable value. Made by plan(); a default-constructed Plan is refused by every call.
class Plan {
 public:
  Plan() = default;

  [[nodiscard]] const PlanConfig& config() const noexcept { return config_; }
  // Bytes of schedule memory (written by schedule, read by decode) for up to max_batch requests. Any content is legal
  // before schedule. Alignment: 16.
  [[nodiscard]] std::int64_t schedule_bytes() const noexcept { return schedule_bytes_; }
  // Bytes of scratch for decode. Any content is legal before every call. Alignment: 128. One per call in flight.
  [[nodiscard]] std::int64_t scratch_bytes() const noexcept { return scratch_bytes_; }
  // Parts that a step is cut into: CPU threads, or groups of thread blocks that share their tokens.
  [[nodiscard]] std::int32_t num_parts() const noexcept { return num_parts_; }
  // Packed (query token, head) rows of one kv head that one part takes at a time.
  [[nodiscard]] std::int32_t rows_per_unit() const noexcept { return rows_per_unit_; }
  [[nodiscard]] const Backend* backend() const noexcept { return backend_; }

 private:
  friend struct PlanAccess;
  PlanConfig config_ = {};
  const Backend* backend_ = nullptr;
  std::int64_t schedule_bytes_ = 0;
  std::int64_t scratch_bytes_ = 0;
  std::int32_t num_parts_ = 0;
  std::int32_t rows_per_unit_ = 0;
  // Costs in units of the cost model (src/schedule/cost.h), chosen by the backend.
  std::int32_t cost_fixed_ = 0;
  std::int32_t cost_block_ = 0;
  std::int32_t cost_merge_ = 0;
  std::int32_t cost_partial_ = 0;
  std::int32_t few_blocks_ = 0;
};

// Errors: invalid_argument names the field and its value; unsupported when no backend serves the device or dtype.
// Thread-safe.
FLASH_MLA_API Result<Plan> plan(const PlanConfig& config) noexcept;

}  // namespace flash_mla
