// See attention.h.
#include "replay/attention.h"

#include <chrono>
#include <cmath>
#include <cstring>

#include "support/errors.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {

constexpr std::int64_t kQuerySlack = 1 << 20;  // elements that the start of a step's queries moves within
constexpr std::int64_t kStagedTokens = 16384;  // written in one call, or one request's if that has more

class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

Plan make_plan(const AttentionConfig& attention, const PagedKvCache& cache, Device device) {
  PlanConfig config;
  config.device = device;
  config.dtype = attention.dtype;
  config.max_batch = attention.max_batch;
  config.num_heads_q = attention.heads;
  config.page_size = cache.config().page_size;
  const Result<Plan> made = plan(config);
  accept(made.status());
  return must(made, "plan");
}

}  // namespace

float Attention::softmax_scale() noexcept { return 1 / std::sqrt(192.0f); }

Attention::Attention(DeviceContext& device, const AttentionConfig& config, PagedKvCache& cache)
    : device_(device),
      config_(config),
      cache_(cache),
      plan_(make_plan(config, cache, device.device())),
      rows_(config.dtype, config.seed),
      q_pool_(random_elements(config.dtype, std::int64_t{config.max_batch} * config.heads * kHeadDim + kQuerySlack,
                              hash(config.seed, 0x71))),
      q_(device),
      out_(device, std::int64_t{config.max_batch} * config.heads * kLatentDim * size_in_bytes(config.dtype)),
      lse_(device, std::int64_t{config.max_batch} * config.heads * size_in_bytes(DType::f32)),
      schedule_(device, plan_.schedule_bytes()),
      scratch_(device, plan_.scratch_bytes()),
      table_(device),
      lengths_(device),
      staging_(device) {
  q_.assign(q_pool_.data(), static_cast<std::int64_t>(q_pool_.size()));
}

StepTimes Attention::run(std::int64_t step, std::span<const RunningRequest> batch,
                         const std::function<void(const LayerResult&)>& look) {
  StepTimes times;
  Stopwatch watch;
  write_new_tokens(batch);
  device_.synchronize();
  times.write_seconds = watch.lap();
  make_schedule(batch);
  device_.synchronize();
  times.schedule_seconds = watch.lap();
  for (std::int32_t layer = 0; layer < config_.layers; ++layer) {
    // Rows of 16 bytes stay aligned: the start moves in steps of 8 elements.
    const std::uint64_t draw =
        hash(hash(config_.seed, static_cast<std::uint64_t>(step)), static_cast<std::uint64_t>(layer));
    const std::int64_t offset = static_cast<std::int64_t>(draw % (kQuerySlack / 8)) * 8;
    const DecodeArgs args = decode_args(static_cast<std::int64_t>(batch.size()), layer, offset);
    watch.lap();
    must(decode(plan_, args, schedule_.memory(), scratch_.memory(), device_.stream()), "decode");
    device_.synchronize();
    times.attention_seconds += watch.lap();
    if (look) look({step, layer, batch, q_pool_.data() + offset * size_in_bytes(config_.dtype), args.out, args.lse});
  }
  return times;
}

void Attention::write_new_tokens(std::span<const RunningRequest> batch) {
  std::size_t first = 0;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (i > first && tokens + batch[i].new_tokens > kStagedTokens) {
      write_chunk(batch.subspan(first, i - first), tokens);
      first = i, tokens = 0;
    }
    tokens += batch[i].new_tokens;
  }
  write_chunk(batch.subspan(first), tokens);
}

void Attention::write_chunk(std::span<const RunningRequest> chunk, std::int64_t num_tokens) {
  std::vector<RequestId> ids;
  std::vector<std::int32_t> counts;
  for (const RunningRequest& request : chunk) {
    ids.push_back(request.id);
    counts.push_back(static_cast<std::int32_t>(request.new_tokens));
  }
  const std::int64_t row_bytes = rows_.row_bytes();
  host_staging_.resize(static_cast<std::size_t>(num_tokens * row_bytes));
  for (std::int32_t layer = 0; layer < config_.layers; ++layer) {
    std::byte* to = host_staging_.data();
    for (const RunningRequest& request : chunk) {
      for (std::int64_t token = request.length - request.new_tokens; token < request.length; ++token, to += row_bytes) {
        std::memcpy(to, rows_.row(request.index, token, layer), static_cast<std::size_t>(row_bytes));
      }
    }
    staging_.assign(host_staging_.data(), num_tokens * row_bytes);
    TensorView c_kv =
        TensorView::contiguous(staging_.data(), config_.dtype, {num_tokens, 1, kHeadDim}, device_.device());
    TensorView k_pe = c_kv;
    c_kv.shape[2] = kLatentDim;
    k_pe.shape[2] = kRopeDim;
    k_pe.data = static_cast<std::byte*>(k_pe.data) + std::int64_t{kLatentDim} * size_in_bytes(config_.dtype);
    must(cache_.write(layer, ids, counts, c_kv, k_pe, device_.stream()), "write");
  }
}

void Attention::make_schedule(std::span<const RunningRequest> batch) {
  ids_.clear();
  for (const RunningRequest& request : batch) ids_.push_back(request.id);
  table_columns_ = must(cache_.max_pages(ids_), "max_pages");
  host_table_.resize(batch.size() * static_cast<std::size_t>(table_columns_));
  host_lengths_.resize(batch.size());
  must(cache_.tables(ids_, table_columns_, host_table_, host_lengths_), "tables");
  table_.assign(host_table_.data(), static_cast<std::int64_t>(host_table_.size() * sizeof(std::int32_t)));
  lengths_.assign(host_lengths_.data(), static_cast<std::int64_t>(host_lengths_.size() * sizeof(std::int32_t)));
  ScheduleArgs args;
  args.cache_seqlens =
      TensorView::contiguous(lengths_.data(), DType::i32, {static_cast<std::int64_t>(batch.size())}, device_.device());
  must(schedule(plan_, args, schedule_.memory(), device_.stream()), "schedule");
}

DecodeArgs Attention::decode_args(std::int64_t batch, std::int32_t layer, std::int64_t q_offset) {
  const Device device = device_.device();
  const std::int64_t heads = config_.heads;
  auto* q = static_cast<std::byte*>(q_.data()) + q_offset * size_in_bytes(config_.dtype);
  DecodeArgs args;
  args.q = TensorView::contiguous(q, config_.dtype, {batch, 1, heads, kHeadDim}, device);
  args.kv_cache = must(cache_.layer(layer), "layer");
  args.block_table = TensorView::contiguous(table_.data(), DType::i32, {batch, table_columns_}, device);
  args.cache_seqlens = TensorView::contiguous(lengths_.data(), DType::i32, {batch}, device);
  args.out = TensorView::contiguous(out_.data(), config_.dtype, {batch, 1, heads, kLatentDim}, device);
  args.lse = TensorView::contiguous(lse_.data(), DType::f32, {batch, heads, 1}, device);
  args.softmax_scale = softmax_scale();
  return args;
}

}  // namespace flash_mla::tools
