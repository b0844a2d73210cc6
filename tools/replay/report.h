// What a replay tells: the figures of each step, their sums, and the report as text, JSON and a page with pictures.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "replay/attention.h"
#include "replay/engine.h"
#include "replay/verify.h"

namespace flash_mla::tools {

struct StepRecord {
  double end_seconds = 0;  // since the first step began
  StepTimes times;
  std::int32_t batch = 0;
  std::int64_t tokens = 0;          // in the cache, summed over the batch
  std::int64_t longest_tokens = 0;  // of the batch
  std::int32_t pages_in_use = 0;
  double internal_fragmentation = 0;
  std::int64_t preemptions = 0;
};

// What it takes to serve the same batches in one way of keeping keys and values. Means over steps, all layers.
struct CacheCost {
  double peak_bytes = 0;  // memory that the cache takes, at most
  double mean_bytes = 0;
  double read_bytes_per_step = 0;
  double flop_per_step = 0;
};

struct ReplayResult {
  // What was served, and how.
  std::string trace_source, backend, device_name;
  DType dtype = DType::bf16;
  std::int32_t heads = 0, layers = 0, num_pages = 0, page_size = 0, max_batch = 0, num_parts = 0;
  std::int64_t recorded_steps = 0;  // sizes of a step that were recorded, to be replayed
  std::uint64_t seed = 0;
  std::int64_t skipped_too_long = 0;
  std::string stopped_by;  // why it ended, in words

  EngineCounts counts;
  std::vector<StepRecord> steps;
  std::optional<VerifyReport> verify;
};

struct ReplaySummary {
  double wall_seconds = 0;
  double attention_seconds = 0, schedule_seconds = 0, write_seconds = 0, other_seconds = 0;
  double tokens_per_second = 0, steps_per_second = 0;
  double attention_p50 = 0, attention_p99 = 0, schedule_p50 = 0, schedule_p99 = 0;  // seconds a step
  double flop_rate = 0, byte_rate = 0;                                              // of attention
  double mean_batch = 0, mean_tokens = 0;
  double mean_pages = 0, pool_use = 0, internal_fragmentation = 0;
  std::int32_t peak_pages = 0;
  CacheCost paged_latent, padded_latent, per_head;
};

ReplaySummary summarize(const ReplayResult& result);

std::string text_report(const ReplayResult& result, const ReplaySummary& summary);
nlohmann::json json_report(const ReplayResult& result, const ReplaySummary& summary);
std::string html_report(const ReplayResult& result, const ReplaySummary& summary);

// The steps in at most `buckets` equal spans of time, for pictures and JSON.
struct Bucket {
  double end_seconds = 0;
  std::int64_t steps = 0;
  double batch = 0, pages_in_use = 0, padded_pages = 0;               // means
  double attention = 0, attention_lowest = 0, attention_highest = 0;  // seconds a step
  std::int64_t preemptions = 0;
};
std::vector<Bucket> bucketed(const ReplayResult& result, std::int64_t buckets);

// A plain sentence on how the run ended and one on what the checked rows say.
std::string outcome_sentence(const ReplayResult& result, const ReplaySummary& summary);
std::string verify_sentence(const ReplayResult& result);

}  // namespace flash_mla::tools
