// The attention of a served batch. A step appends the newest token of every request to each layer's cache, makes one
// schedule and decodes every layer with fresh random queries. It stands where a model would call the library, and as an
// engine does, it records the step once for each size of batch and replays it: on CUDA as one graph.
//
// What a token's latent is depends on (request, token, layer) alone, not on where it lies, so results can be checked
// without looking at the page pool.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
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
  double write_seconds = 0;      // new tokens, contexts of requests that entered, queries
  double schedule_seconds = 0;   // tables, their upload and schedule()
  double attention_seconds = 0;  // decode() of all layers
};

class Attention {
 public:
  Attention(DeviceContext& device, const AttentionConfig& config, PagedKvCache& cache);

  // Serves one step of a batch that is not empty. `look` is then called for each layer, outside the times.
  StepTimes run(std::int64_t step, std::span<const RunningRequest> batch,
                const std::function<void(const LayerResult&)>& look = {});

  [[nodiscard]] const Plan& plan() const noexcept { return plan_; }
  [[nodiscard]] const RandomRows& rows() const noexcept { return rows_; }
  // Sizes of batch and table that were recorded.
  [[nodiscard]] std::size_t recordings() const noexcept { return steps_.size(); }
  [[nodiscard]] static float softmax_scale() noexcept;

 private:
  // A step of up to `batch` requests of up to `columns` pages. Places in the batch that are left are empty requests.
  struct RecordedStep {
    std::int64_t batch = 0, columns = 0;
    Buffer table;
    std::unique_ptr<Recording> recording;
  };

  RecordedStep& step_for(std::span<const RunningRequest> batch);
  std::unique_ptr<Recording> record(const RecordedStep& step);
  [[nodiscard]] ScheduleArgs schedule_args(const RecordedStep& step);
  [[nodiscard]] AppendArgs append_args(const RecordedStep& step, std::int32_t layer);
  [[nodiscard]] DecodeArgs decode_args(const RecordedStep& step, std::int32_t layer);

  void write_contexts(std::span<const RunningRequest> batch);
  void write_chunk(std::span<const RunningRequest> chunk, std::int64_t num_tokens);
  void upload_new_tokens(const RecordedStep& step, std::span<const RunningRequest> batch);
  void upload_tables(RecordedStep& step, std::span<const RunningRequest> batch);
  void copy_queries(std::int64_t step, std::int64_t batch);
  [[nodiscard]] std::int64_t query_offset(std::int64_t step, std::int32_t layer) const;

  DeviceContext& device_;
  AttentionConfig config_;
  PagedKvCache& cache_;
  Plan plan_;
  RandomRows rows_;
  std::vector<std::byte> q_pool_;  // queries of a step start at a random place in it
  Buffer device_q_pool_;
  std::int64_t token_bytes_, q_bytes_, out_bytes_, lse_bytes_;  // of a layer of max_batch requests
  Buffer tokens_, q_, out_, lse_, slots_, lengths_;
  Buffer schedule_, scratch_, staging_;
  std::map<std::pair<std::int64_t, std::int64_t>, RecordedStep> steps_;
  std::vector<std::byte> host_staging_;
  std::vector<std::int64_t> host_slots_;
  std::vector<std::int32_t> host_table_, host_lengths_;
  std::vector<RequestId> ids_;  // of the batch
};

}  // namespace flash_mla::tools
