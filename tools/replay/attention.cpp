// See attention.h.
#include "replay/attention.h"

#include <algorithm>
#include <bit>
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

std::int64_t power_of_two_from(std::int64_t n) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n)));
}

// The marks of a recorded step, in order.
enum Mark : std::size_t { kBegin, kAppended, kScheduled, kDecoded };

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
      device_q_pool_(device),
      token_bytes_(config.max_batch * rows_.row_bytes()),
      q_bytes_(std::int64_t{config.max_batch} * config.heads * kHeadDim * size_in_bytes(config.dtype)),
      out_bytes_(std::int64_t{config.max_batch} * config.heads * kLatentDim * size_in_bytes(config.dtype)),
      lse_bytes_(std::int64_t{config.max_batch} * config.heads * size_in_bytes(DType::f32)),
      tokens_(device, token_bytes_ * config.layers),
      q_(device, q_bytes_ * config.layers),
      out_(device, out_bytes_ * config.layers),
      lse_(device, lse_bytes_ * config.layers),
      slots_(device, config.max_batch * size_in_bytes(DType::i64)),
      lengths_(device, config.max_batch * size_in_bytes(DType::i32)),
      schedule_(device, plan_.schedule_bytes()),
      scratch_(device, plan_.scratch_bytes()),
      staging_(device) {
  device_q_pool_.assign(q_pool_.data(), static_cast<std::int64_t>(q_pool_.size()));
}

StepTimes Attention::run(std::int64_t step, std::span<const RunningRequest> batch,
                         const std::function<void(const LayerResult&)>& look) {
  const auto num_requests = static_cast<std::int64_t>(batch.size());
  ids_.clear();
  for (const RunningRequest& request : batch) ids_.push_back(request.id);
  RecordedStep& recorded = step_for(batch);
  StepTimes times;
  Stopwatch watch;
  write_contexts(batch);
  upload_new_tokens(recorded, batch);
  copy_queries(step, num_requests);
  device_.synchronize();
  times.write_seconds = watch.lap();
  upload_tables(recorded, batch);
  times.schedule_seconds = watch.lap();
  recorded.recording->run();
  times.write_seconds += recorded.recording->seconds_between(kBegin, kAppended);
  times.schedule_seconds += recorded.recording->seconds_between(kAppended, kScheduled);
  times.attention_seconds = recorded.recording->seconds_between(kScheduled, kDecoded);
  for (std::int32_t layer = 0; look && layer < config_.layers; ++layer) {
    const DecodeArgs args = decode_args(recorded, layer);
    const std::byte* q = q_pool_.data() + query_offset(step, layer) * size_in_bytes(config_.dtype);
    look({step, layer, batch, q, args.out, args.lse});
  }
  return times;
}

// ---- the recorded step ---------------------------------------------------------------------------------------------

Attention::RecordedStep& Attention::step_for(std::span<const RunningRequest> batch) {
  const std::int64_t size =
      std::min<std::int64_t>(power_of_two_from(static_cast<std::int64_t>(batch.size())), config_.max_batch);
  const std::int64_t columns = power_of_two_from(must(cache_.max_pages(ids_), "max_pages"));
  if (const auto found = steps_.find({size, columns}); found != steps_.end()) return found->second;
  Buffer table(device_, size * columns * size_in_bytes(DType::i32));
  RecordedStep& step =
      steps_.emplace(std::pair(size, columns), RecordedStep{size, columns, std::move(table), nullptr}).first->second;
  step.recording = record(step);
  return step;
}

std::unique_ptr<Recording> Attention::record(const RecordedStep& step) {
  return device_.record([this, &step](const std::function<void()>& mark) {
    mark();
    for (std::int32_t layer = 0; layer < config_.layers; ++layer) {
      must(append_kv(append_args(step, layer), device_.stream()), "append_kv");
    }
    mark();
    must(schedule(plan_, schedule_args(step), schedule_.memory(), device_.stream()), "schedule");
    mark();
    for (std::int32_t layer = 0; layer < config_.layers; ++layer) {
      must(decode(plan_, decode_args(step, layer), schedule_.memory(), scratch_.memory(), device_.stream()), "decode");
    }
    mark();
  });
}

AppendArgs Attention::append_args(const RecordedStep& step, std::int32_t layer) {
  const Device device = device_.device();
  AppendArgs args;
  args.c_kv =
      TensorView::contiguous(tokens_.at(layer * token_bytes_), config_.dtype, {step.batch, 1, kHeadDim}, device);
  args.k_pe = args.c_kv;
  args.c_kv.shape[2] = kLatentDim;
  args.k_pe.shape[2] = kRopeDim;
  args.k_pe.data = static_cast<std::byte*>(args.k_pe.data) + std::int64_t{kLatentDim} * size_in_bytes(config_.dtype);
  args.kv_cache = must(cache_.layer(layer), "layer");
  args.slot_mapping = TensorView::contiguous(slots_.data(), DType::i64, {step.batch}, device);
  return args;
}

ScheduleArgs Attention::schedule_args(const RecordedStep& step) {
  ScheduleArgs args;
  args.cache_seqlens = TensorView::contiguous(lengths_.data(), DType::i32, {step.batch}, device_.device());
  return args;
}

DecodeArgs Attention::decode_args(const RecordedStep& step, std::int32_t layer) {
  const Device device = device_.device();
  const std::int64_t heads = config_.heads;
  DecodeArgs args;
  args.q = TensorView::contiguous(q_.at(layer * q_bytes_), config_.dtype, {step.batch, 1, heads, kHeadDim}, device);
  args.kv_cache = must(cache_.layer(layer), "layer");
  args.block_table = TensorView::contiguous(step.table.data(), DType::i32, {step.batch, step.columns}, device);
  args.cache_seqlens = schedule_args(step).cache_seqlens;
  args.out =
      TensorView::contiguous(out_.at(layer * out_bytes_), config_.dtype, {step.batch, 1, heads, kLatentDim}, device);
  args.lse = TensorView::contiguous(lse_.at(layer * lse_bytes_), DType::f32, {step.batch, heads, 1}, device);
  args.softmax_scale = softmax_scale();
  return args;
}

// ---- what it reads -------------------------------------------------------------------------------------------------

// Requests that entered bring more than the token that the step appends; that one is written with them, and again.
void Attention::write_contexts(std::span<const RunningRequest> batch) {
  std::vector<RunningRequest> chunk;
  std::int64_t tokens = 0;
  for (const RunningRequest& request : batch) {
    if (request.new_tokens <= 1) continue;
    if (!chunk.empty() && tokens + request.new_tokens > kStagedTokens) {
      write_chunk(chunk, tokens);
      chunk.clear(), tokens = 0;
    }
    chunk.push_back(request);
    tokens += request.new_tokens;
  }
  if (!chunk.empty()) write_chunk(chunk, tokens);
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

void Attention::upload_new_tokens(const RecordedStep& step, std::span<const RunningRequest> batch) {
  const auto row_bytes = static_cast<std::size_t>(rows_.row_bytes());
  host_staging_.resize(batch.size() * row_bytes);
  for (std::int32_t layer = 0; layer < config_.layers; ++layer) {
    std::byte* to = host_staging_.data();
    for (const RunningRequest& request : batch) {
      std::memcpy(to, rows_.row(request.index, request.length - 1, layer), row_bytes);
      to += row_bytes;
    }
    device_.upload(tokens_.at(layer * token_bytes_), host_staging_.data(), to - host_staging_.data());
  }
  host_slots_.assign(static_cast<std::size_t>(step.batch), -1);
  const std::vector<std::int32_t> ones(batch.size(), 1);
  must(cache_.slots(ids_, ones, std::span(host_slots_).first(batch.size())), "slots");
  slots_.assign(host_slots_.data(), static_cast<std::int64_t>(host_slots_.size() * sizeof(std::int64_t)));
}

void Attention::upload_tables(RecordedStep& step, std::span<const RunningRequest> batch) {
  host_table_.assign(static_cast<std::size_t>(step.batch * step.columns), -1);
  host_lengths_.assign(static_cast<std::size_t>(step.batch), 0);
  must(cache_.tables(ids_, step.columns,
                     std::span(host_table_).first(batch.size() * static_cast<std::size_t>(step.columns)),
                     std::span(host_lengths_).first(batch.size())),
       "tables");
  step.table.assign(host_table_.data(), static_cast<std::int64_t>(host_table_.size() * sizeof(std::int32_t)));
  lengths_.assign(host_lengths_.data(), static_cast<std::int64_t>(host_lengths_.size() * sizeof(std::int32_t)));
}

// Where the queries of a step begin in the pool. Rows of 16 bytes stay aligned: the start moves in steps of 8 elements.
std::int64_t Attention::query_offset(std::int64_t step, std::int32_t layer) const {
  const std::uint64_t draw =
      hash(hash(config_.seed, static_cast<std::uint64_t>(step)), static_cast<std::uint64_t>(layer));
  return static_cast<std::int64_t>(draw % (kQuerySlack / 8)) * 8;
}

void Attention::copy_queries(std::int64_t step, std::int64_t batch) {
  for (std::int32_t layer = 0; layer < config_.layers; ++layer) {
    device_.copy(q_.at(layer * q_bytes_), device_q_pool_.at(query_offset(step, layer) * size_in_bytes(config_.dtype)),
                 q_bytes_ / config_.max_batch * batch);
  }
}

}  // namespace flash_mla::tools
