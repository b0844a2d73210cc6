// The attention of a served batch: writes new tokens into the cache, then, each step, one schedule and per layer one
// decode with fresh random queries. It stands where a model would call the library.
//
// What a token's latent is depends on (request, token, layer) alone, not on where it lies, so results can be checked
// without looking at the page pool.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "flash_mla/decode.h"
#include "flash_mla/paged_kv_cache.h"
#include "flash_mla/plan.h"
#include "replay/engine.h"
#include "support/device.h"
#include "support/random_rows.h"

namespace flash_mla::tools {

struct AttentionConfig {
  DType dtype = DType::bf16;
  std::int32_t heads = 128;
  std::int32_t layers = 1;
  std::int32_t max_batch = 0;
  std::uint64_t seed = 1;
};

// What a layer computed, for whoever wants to look at rows. Rows are (request of the batch, head).
struct LayerResult {
  std::int64_t step = 0;
  std::int32_t layer = 0;
  std::span<const RunningRequest> batch;
  const std::byte* q = nullptr;  // host copy of [b, heads, 576]
  TensorView out;                // dtype [b, 1, heads, 512], on the device
  TensorView lse;                // f32 [b, heads, 1], on the device
};

struct StepTimes {
  double write_seconds = 0;      // new tokens, and contexts of requests that entered
  double schedule_seconds = 0;   // tables, their upload and schedule()
  double attention_seconds = 0;  // decode() of all layers
};

class Attention {
 public:
  Attention(DeviceContext& device, const AttentionConfig& config, PagedKvCache& cache);

  // Serves one step of a batch that is not empty. `look` is called after each layer, outside the times.
  StepTimes run(std::int64_t step, std::span<const RunningRequest> batch,
                const std::function<void(const LayerResult&)>& look = {});

  [[nodiscard]] const Plan& plan() const noexcept { return plan_; }
  [[nodiscard]] const RandomRows& rows() const noexcept { return rows_; }
  [[nodiscard]] static float softmax_scale() noexcept;

 private:
  void write_new_tokens(std::span<const RunningRequest> batch);
  void write_chunk(std::span<const RunningRequest> chunk, std::int64_t num_tokens);
  void make_schedule(std::span<const RunningRequest> batch);
  [[nodiscard]] DecodeArgs decode_args(std::int64_t batch, std::int32_t layer, std::int64_t q_offset);

  DeviceContext& device_;
  AttentionConfig config_;
  PagedKvCache& cache_;
  Plan plan_;
  RandomRows rows_;
  std::vector<std::byte> q_pool_;  // queries of a step start at a random place in it
  Buffer q_, out_, lse_, schedule_, scratch_, table_, lengths_, staging_;
  std::vector<std::byte> host_staging_;
  std::vector<std::int32_t> host_table_, host_lengths_;
  std::vector<RequestId> ids_;
  std::int64_t table_columns_ = 0;
};

}  // namespace flash_mla::tools
