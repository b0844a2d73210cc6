// Sums over the steps of a replay; see report.h.
//
//   flop of a step         2 * heads * tokens * (576 + 512) * layers
//   bytes of a step        element * (576 * tokens + batch * heads * (576 + 512)) * layers
// and for the same batch padded to its longest request (tokens = batch * longest), and with uncompressed keys (192) and
// values (128) for each head, as before the latent was introduced.
#include <algorithm>
#include <cmath>

#include "flash_mla/plan.h"
#include "replay/report.h"
#include "support/human.h"

namespace flash_mla::tools {
namespace {

constexpr double kLatentFlopPerToken = 2.0 * (kHeadDim + kLatentDim);  // of one head
constexpr double kPerHeadDims = 192 + 128;                             // key and value of one uncompressed head

void add(CacheCost& cost, double stored_tokens, double read_tokens, double bytes_per_token, double flop_per_token) {
  cost.peak_bytes = std::max(cost.peak_bytes, stored_tokens * bytes_per_token);
  cost.mean_bytes += stored_tokens * bytes_per_token;
  cost.read_bytes_per_step += read_tokens * bytes_per_token;
  cost.flop_per_step += read_tokens * flop_per_token;
}

void divide(CacheCost& cost, double steps) {
  cost.mean_bytes /= steps;
  cost.read_bytes_per_step /= steps;
  cost.flop_per_step /= steps;
}

}  // namespace

ReplaySummary summarize(const ReplayResult& result) {
  ReplaySummary sum;
  if (result.steps.empty()) return sum;
  const double element = size_in_bytes(result.dtype), heads = result.heads, layers = result.layers;
  const double latent_bytes = kHeadDim * element * layers, latent_flop = kLatentFlopPerToken * heads * layers;
  const double head_bytes = kPerHeadDims * heads * element * layers, head_flop = 2 * kPerHeadDims * heads * layers;
  std::vector<double> attention, schedule;
  double row_bytes = 0;  // queries and results
  for (const StepRecord& step : result.steps) {
    attention.push_back(step.times.attention_seconds);
    schedule.push_back(step.times.schedule_seconds);
    sum.attention_seconds += step.times.attention_seconds;
    sum.schedule_seconds += step.times.schedule_seconds;
    sum.write_seconds += step.times.write_seconds;
    sum.mean_batch += step.batch;
    sum.mean_tokens += static_cast<double>(step.tokens);
    sum.mean_pages += step.pages_in_use;
    sum.internal_fragmentation += step.internal_fragmentation;
    sum.peak_pages = std::max(sum.peak_pages, step.pages_in_use);
    row_bytes += step.batch * heads * (kHeadDim + kLatentDim) * element * layers;
    const double tokens = static_cast<double>(step.tokens);
    const double stored = static_cast<double>(step.pages_in_use) * result.page_size;
    const double padded = static_cast<double>(step.batch) * static_cast<double>(step.longest_tokens);
    add(sum.paged_latent, stored, tokens, latent_bytes, latent_flop);
    add(sum.padded_latent, padded, padded, latent_bytes, latent_flop);
    add(sum.per_head, stored, tokens, head_bytes, head_flop);
  }
  const auto steps = static_cast<double>(result.steps.size());
  for (CacheCost* cost : {&sum.paged_latent, &sum.padded_latent, &sum.per_head}) divide(*cost, steps);
  sum.wall_seconds = result.steps.back().end_seconds;
  sum.other_seconds = sum.wall_seconds - sum.attention_seconds - sum.schedule_seconds - sum.write_seconds;
  sum.tokens_per_second = static_cast<double>(result.counts.generated_tokens) / sum.wall_seconds;
  sum.steps_per_second = steps / sum.wall_seconds;
  sum.attention_p50 = percentile(attention, 0.5), sum.attention_p99 = percentile(attention, 0.99);
  sum.schedule_p50 = percentile(schedule, 0.5), sum.schedule_p99 = percentile(schedule, 0.99);
  sum.flop_rate = sum.paged_latent.flop_per_step * steps / sum.attention_seconds;
  sum.byte_rate = (sum.paged_latent.read_bytes_per_step * steps + row_bytes) / sum.attention_seconds;
  sum.mean_batch /= steps, sum.mean_tokens /= steps, sum.mean_pages /= steps, sum.internal_fragmentation /= steps;
  sum.pool_use = sum.mean_pages / result.num_pages;
  return sum;
}

std::vector<Bucket> bucketed(const ReplayResult& result, std::int64_t buckets) {
  std::vector<Bucket> filled;
  if (result.steps.empty()) return filled;
  const double width = result.steps.back().end_seconds / static_cast<double>(buckets);
  std::int64_t current = -1;
  for (const StepRecord& step : result.steps) {
    const auto place = static_cast<std::int64_t>(std::ceil(step.end_seconds / width)) - 1;
    if (place != current) filled.push_back({.end_seconds = 0, .attention_lowest = INFINITY}), current = place;
    Bucket& bucket = filled.back();
    const double attention = step.times.attention_seconds,
                 padded_pages = static_cast<double>(step.batch) * std::ceil(static_cast<double>(step.longest_tokens) /
                                                                            static_cast<double>(result.page_size));
    bucket.end_seconds = step.end_seconds;
    bucket.steps += 1;
    bucket.batch += step.batch;
    bucket.pages_in_use += step.pages_in_use;
    bucket.padded_pages += padded_pages;
    bucket.attention += attention;
    bucket.attention_lowest = std::min(bucket.attention_lowest, attention);
    bucket.attention_highest = std::max(bucket.attention_highest, attention);
    bucket.preemptions += step.preemptions;
  }
  for (Bucket& bucket : filled) {
    const auto steps = static_cast<double>(bucket.steps);
    bucket.batch /= steps, bucket.pages_in_use /= steps, bucket.padded_pages /= steps, bucket.attention /= steps;
  }
  return filled;
}

}  // namespace flash_mla::tools
