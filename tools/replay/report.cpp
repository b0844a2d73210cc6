// The report of a replay as text and JSON; see report.h.
#include "replay/report.h"

#include <fmt/format.h>

#include "flash_mla/version.h"
#include "support/human.h"

namespace flash_mla::tools {
namespace {

constexpr std::int64_t kJsonBuckets = 600;

std::string ratio(double value, double base) { return base > 0 ? fmt::format("{:.2f} x", value / base) : "-"; }

std::string cost_table(const ReplaySummary& sum) {
  Table table({"the same batches", "cache memory, peak", "", "read a step", "", "flop a step", ""});
  const CacheCost& ours = sum.paged_latent;
  const auto add = [&](const char* name, const CacheCost& cost) {
    table.add({name, human_bytes(cost.peak_bytes), ratio(cost.peak_bytes, ours.peak_bytes),
               human_bytes(cost.read_bytes_per_step), ratio(cost.read_bytes_per_step, ours.read_bytes_per_step),
               human_flops(cost.flop_per_step), ratio(cost.flop_per_step, ours.flop_per_step)});
  };
  add("latent in pages (this run)", ours);
  add("latent, padded to the longest request", sum.padded_latent);
  add("uncompressed K and V of each head, in pages", sum.per_head);
  return table.text();
}

std::string share_of(double seconds, double wall) {
  return fmt::format("{} ({})", human_seconds(seconds), human_percent(wall > 0 ? seconds / wall : 0));
}

nlohmann::json cost_json(const CacheCost& cost) {
  return {{"peak_bytes", cost.peak_bytes},
          {"mean_bytes", cost.mean_bytes},
          {"read_bytes_per_step", cost.read_bytes_per_step},
          {"flop_per_step", cost.flop_per_step}};
}

nlohmann::json series_json(const ReplayResult& result) {
  nlohmann::json series = nlohmann::json::array();
  for (const Bucket& bucket : bucketed(result, kJsonBuckets)) {
    series.push_back({{"end_seconds", bucket.end_seconds},
                      {"steps", bucket.steps},
                      {"batch", bucket.batch},
                      {"pages_in_use", bucket.pages_in_use},
                      {"padded_pages", bucket.padded_pages},
                      {"attention_seconds", bucket.attention},
                      {"attention_seconds_lowest", bucket.attention_lowest},
                      {"attention_seconds_highest", bucket.attention_highest},
                      {"preemptions", bucket.preemptions}});
  }
  return series;
}

}  // namespace

std::string outcome_sentence(const ReplayResult& result, const ReplaySummary& sum) {
  const EngineCounts& n = result.counts;
  return fmt::format(
      "{} steps in {} ({}): {} of {} requests entered, {} finished, {} still running, {} waiting; {} preemptions, {} "
      "of them resumed.",
      human_count(static_cast<std::int64_t>(result.steps.size())), human_seconds(sum.wall_seconds), result.stopped_by,
      human_count(n.entered), human_count(n.requests), human_count(n.finished), human_count(n.running),
      human_count(n.waiting), human_count(n.preemptions), human_count(n.resumptions));
}

std::string verify_sentence(const ReplayResult& result) {
  if (!result.verify) return "No rows were checked (--verify N checks N of them).";
  const VerifyReport& verify = *result.verify;
  const std::string sample = fmt::format("{} rows, drawn evenly from the {} that were computed,",
                                         human_count(verify.rows), human_count(verify.rows_seen));
  if (verify.wrong > 0) {
    return fmt::format("WRONG: of {} {} are outside their error bound. The worst: {}", sample,
                       human_count(verify.wrong), verify.worst_text);
  }
  return fmt::format("{} agree with the fp64 reference; the worst uses {} of its error bound.", sample,
                     human_percent(verify.worst));
}

std::string text_report(const ReplayResult& result, const ReplaySummary& sum) {
  std::string text = fmt::format("{}\n", outcome_sentence(result, sum));
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("  {:<18} {}\n", name, value);
  };
  const EngineCounts& n = result.counts;
  line("requests", fmt::format("{} entered, {} finished, {} running, {} waiting ({} of them preempted)",
                               human_count(n.entered), human_count(n.finished), human_count(n.running),
                               human_count(n.waiting), human_count(n.waiting_preempted)));
  line("tokens", fmt::format("{} generated, {} a second; {} of context put into the cache, {} again after preemption",
                             human_count(n.generated_tokens), human_count(sum.tokens_per_second),
                             human_count(n.context_tokens), human_count(n.recomputed_tokens)));
  line("batch", fmt::format("{:.1f} requests with {} tokens in the cache, on average", sum.mean_batch,
                            human_count(sum.mean_tokens)));
  if (result.backend == "cuda") {
    line("graphs", fmt::format("each step is one CUDA graph: append, schedule, decode; {} were captured, by sizes of "
                               "batch and table",
                               human_count(result.recorded_steps)));
  }
  line("attention a step",
       fmt::format("p50 {}, p99 {}{}", human_seconds(sum.attention_p50), human_seconds(sum.attention_p99),
                   result.layers > 1 ? fmt::format(" ({} layers)", result.layers) : ""));
  line("attention rate", fmt::format("{}, {}", human_flop_rate(sum.flop_rate), human_byte_rate(sum.byte_rate)));
  line("scheduler a step",
       fmt::format("p50 {}, p99 {}", human_seconds(sum.schedule_p50), human_seconds(sum.schedule_p99)));
  line("time",
       fmt::format("attention {}, scheduler {}, writing tokens {}, the rest {}",
                   share_of(sum.attention_seconds, sum.wall_seconds), share_of(sum.schedule_seconds, sum.wall_seconds),
                   share_of(sum.write_seconds, sum.wall_seconds), share_of(sum.other_seconds, sum.wall_seconds)));
  line("cache",
       fmt::format("{} pages of {} tokens ({}); in use {} on average, {} at most; {} of a page in use is empty",
                   human_count(std::int64_t{result.num_pages}), result.page_size,
                   human_bytes(static_cast<double>(result.num_pages) * result.page_size * kHeadDim *
                               size_in_bytes(result.dtype) * result.layers),
                   human_percent(sum.pool_use), human_count(std::int64_t{sum.peak_pages}),
                   human_percent(sum.internal_fragmentation)));
  if (result.skipped_too_long > 0) {
    line("left out", fmt::format("{} requests longer than the pool", human_count(result.skipped_too_long)));
  }
  line("check", verify_sentence(result));
  return text + "\n" + cost_table(sum);
}

nlohmann::json json_report(const ReplayResult& result, const ReplaySummary& sum) {
  const EngineCounts& n = result.counts;
  nlohmann::json report;
  report["version"] = version();
  report["trace"] = result.trace_source;
  report["backend"] = result.backend;
  report["device"] = result.device_name;
  report["stopped_by"] = result.stopped_by;
  report["config"] = {
      {"dtype", to_string(result.dtype)}, {"heads", result.heads},         {"layers", result.layers},
      {"pages", result.num_pages},        {"page_size", result.page_size}, {"max_batch", result.max_batch},
      {"parts", result.num_parts},        {"seed", result.seed},           {"recorded_steps", result.recorded_steps}};
  report["requests"] = {
      {"in_trace", n.requests},       {"entered", n.entered},         {"finished", n.finished},
      {"running", n.running},         {"waiting", n.waiting},         {"waiting_preempted", n.waiting_preempted},
      {"preemptions", n.preemptions}, {"resumptions", n.resumptions}, {"skipped_too_long", result.skipped_too_long}};
  report["tokens"] = {{"generated", n.generated_tokens},
                      {"context", n.context_tokens},
                      {"recomputed", n.recomputed_tokens},
                      {"generated_per_second", sum.tokens_per_second}};
  report["seconds"] = {{"wall", sum.wall_seconds},
                       {"attention", sum.attention_seconds},
                       {"schedule", sum.schedule_seconds},
                       {"write", sum.write_seconds},
                       {"other", sum.other_seconds}};
  report["per_step"] = {{"steps", result.steps.size()},
                        {"mean_batch", sum.mean_batch},
                        {"mean_tokens", sum.mean_tokens},
                        {"attention_seconds_p50", sum.attention_p50},
                        {"attention_seconds_p99", sum.attention_p99},
                        {"schedule_seconds_p50", sum.schedule_p50},
                        {"schedule_seconds_p99", sum.schedule_p99}};
  report["attention"] = {{"tflops", sum.flop_rate * 1e-12}, {"gbps", sum.byte_rate * 1e-9}};
  report["cache"] = {{"mean_pages_in_use", sum.mean_pages},
                     {"peak_pages_in_use", sum.peak_pages},
                     {"utilisation", sum.pool_use},
                     {"internal_fragmentation", sum.internal_fragmentation}};
  report["cost"] = {{"paged_latent", cost_json(sum.paged_latent)},
                    {"padded_latent", cost_json(sum.padded_latent)},
                    {"uncompressed_per_head", cost_json(sum.per_head)}};
  if (result.verify) {
    report["verify"] = {{"rows", result.verify->rows},
                        {"rows_seen", result.verify->rows_seen},
                        {"wrong", result.verify->wrong},
                        {"worst_share_of_bound", result.verify->worst},
                        {"worst", result.verify->worst_text}};
  }
  report["series"] = series_json(result);
  return report;
}

}  // namespace flash_mla::tools
