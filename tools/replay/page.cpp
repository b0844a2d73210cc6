// The page with pictures of a replay: one HTML file that needs nothing else; see report.h.
#include <fmt/format.h>

#include "flash_mla/version.h"
#include "replay/chart.h"
#include "replay/report.h"
#include "support/human.h"

namespace flash_mla::tools {
namespace {

constexpr std::int64_t kBuckets = 240;

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #ffffff; --ink: #22262b; --soft: #667079; --grid: #e3e5e4;
  --series-1: #2166ac; --series-2: #d6762b; --series-3: #6a8f3c; --good: #2f7d4f; --bad: #b3312c; }
@media (prefers-color-scheme: dark) { :root { --paper: #16191c; --card: #1e2226; --ink: #e4e7ea; --soft: #98a2ab;
  --grid: #343a40; --series-1: #6fb1ec; --series-2: #f0a05a; --series-3: #a5cc74; --good: #72c795; --bad: #f08a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0 0 2px; }
p { margin: 6px 0 12px; } .soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
section { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; padding: 18px 20px; margin: 18px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0 0; }
.tiles div { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; padding: 12px 14px; }
.tiles b { display: block; font-size: 20px; font-weight: 600; line-height: 1.3; white-space: nowrap; } .tiles span { color: var(--soft); font-size: 14px; }
.legend { font-size: 14px; color: var(--soft); margin: 0 0 6px; } .legend i { display: inline-block; width: 14px; height: 10px;
  border-radius: 2px; margin: 0 5px 0 14px; } .legend i:first-child { margin-left: 0; }
svg { display: block; width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--soft);
  stroke: var(--card); stroke-width: 3px; paint-order: stroke; }
.grid { stroke: var(--grid); } .level { stroke: var(--ink); stroke-dasharray: 5 4; } .mark { fill: var(--bad); }
.tip { fill: transparent; } .tip:hover { fill: var(--ink); fill-opacity: 0.08; }
table { border-collapse: collapse; width: 100%; font-size: 15px; } td, th { padding: 6px 8px; text-align: left; vertical-align: top;
  border-top: 1px solid var(--grid); } tr:first-child > * { border-top: 0; } th { font-weight: 500; color: var(--soft); width: 30%; }
)";

std::string tile(const std::string& value, const std::string& what) {
  return fmt::format("<div><b>{}</b><span>{}</span></div>\n", html_escaped(value), html_escaped(what));
}

std::string legend(const Chart& chart) {
  std::string text = "<p class=\"legend\">";
  for (const ChartSeries& series : chart.series) {
    text += fmt::format("<i style=\"background: var(--series-{})\"></i>{}", series.color, html_escaped(series.name));
  }
  if (!chart.marks.empty()) {
    text += fmt::format("<i style=\"background: var(--bad)\"></i>{}", html_escaped(chart.mark_name));
  }
  return text + "</p>\n";
}

std::string section(const std::string& title, const std::string& caption, const std::string& content) {
  return fmt::format("<section><h2>{}</h2>\n<p class=\"soft\">{}</p>\n{}</section>\n", html_escaped(title),
                     html_escaped(caption), content);
}

Chart batch_chart(const std::vector<Bucket>& buckets) {
  Chart chart{.label = "Requests in the batch over time", .unit = "requests"};
  ChartSeries batch{.name = "running requests", .color = 1, .filled = true};
  for (const Bucket& bucket : buckets) {
    chart.x.push_back(bucket.end_seconds);
    batch.values.push_back(bucket.batch);
    if (bucket.preemptions > 0) chart.marks.push_back(bucket.end_seconds);
  }
  chart.series = {batch};
  chart.mark_name = "a request was preempted";
  return chart;
}

Chart pages_chart(const std::vector<Bucket>& buckets, const ReplayResult& result) {
  Chart chart{.label = "Pages in use over time, against the padded need", .unit = "pages"};
  ChartSeries used{.name = "pages in use", .color = 1, .filled = true};
  ChartSeries padded{.name = "needed if every request were padded to the longest", .color = 2};
  for (const Bucket& bucket : buckets) {
    chart.x.push_back(bucket.end_seconds);
    used.values.push_back(bucket.pages_in_use);
    padded.values.push_back(bucket.padded_pages);
  }
  chart.series = {used, padded};
  chart.levels = {{"the pool", static_cast<double>(result.num_pages)}};
  return chart;
}

Chart time_chart(const std::vector<Bucket>& buckets, const ReplaySummary& sum) {
  Chart chart{.label = "Attention time of a step over time", .unit = "milliseconds"};
  ChartSeries time{.name = "attention a step: mean, and lowest to highest", .color = 3};
  for (const Bucket& bucket : buckets) {
    chart.x.push_back(bucket.end_seconds);
    time.values.push_back(bucket.attention * 1e3);
    time.lowest.push_back(bucket.attention_lowest * 1e3);
    time.highest.push_back(bucket.attention_highest * 1e3);
  }
  chart.series = {time};
  chart.levels = {{"p99", sum.attention_p99 * 1e3}};
  return chart;
}

std::string memory_bars(const ReplaySummary& sum) {
  const auto bar = [](const char* name, const CacheCost& cost, int color) {
    return Bar{name, cost.mean_bytes, human_bytes(cost.mean_bytes), color};
  };
  return svg_bar_chart("Mean cache memory in three ways",
                       {bar("latent in pages (this run)", sum.paged_latent, 1),
                        bar("latent, padded to the longest", sum.padded_latent, 2),
                        bar("uncompressed K and V per head, in pages", sum.per_head, 3)});
}

std::string memory_caption(const ReplaySummary& sum) {
  const CacheCost& ours = sum.paged_latent;
  return fmt::format(
      "Mean over the run. Padding would take {:.1f} times the memory and {:.1f} times the arithmetic; keys and values "
      "of "
      "each head {:.0f} times the memory and {:.0f} times the bytes to read in a step, for {:.2f} times the "
      "arithmetic.",
      sum.padded_latent.mean_bytes / ours.mean_bytes, sum.padded_latent.flop_per_step / ours.flop_per_step,
      sum.per_head.mean_bytes / ours.mean_bytes, sum.per_head.read_bytes_per_step / ours.read_bytes_per_step,
      sum.per_head.flop_per_step / ours.flop_per_step);
}

std::string details(const ReplayResult& result, const ReplaySummary& sum) {
  std::string rows;
  const auto row = [&](const char* name, const std::string& value) {
    rows += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", name, html_escaped(value));
  };
  const EngineCounts& n = result.counts;
  row("What was served", result.trace_source);
  row("Where", fmt::format("{} ({}), {} parts", result.device_name, result.backend, result.num_parts));
  row("Model", fmt::format("{} heads, {} layer{}, {}; latent 512 + 64 rope", result.heads, result.layers,
                           result.layers == 1 ? "" : "s", to_string(result.dtype)));
  row("Cache", fmt::format("{} pages of {} tokens; {} in use on average, {} at most; {} of a page in use is empty",
                           human_count(std::int64_t{result.num_pages}), result.page_size, human_percent(sum.pool_use),
                           human_count(std::int64_t{sum.peak_pages}), human_percent(sum.internal_fragmentation)));
  row("Requests", fmt::format("{} entered, {} finished, {} running and {} waiting at the end", human_count(n.entered),
                              human_count(n.finished), human_count(n.running), human_count(n.waiting)));
  row("Preemption",
      fmt::format("{} times the youngest request gave its pages back, {} resumed so far; {} tokens were put "
                  "into the cache again for it",
                  human_count(n.preemptions), human_count(n.resumptions), human_count(n.recomputed_tokens)));
  row("Attention a step",
      fmt::format("p50 {}, p99 {}; {}, {}", human_seconds(sum.attention_p50), human_seconds(sum.attention_p99),
                  human_flop_rate(sum.flop_rate), human_byte_rate(sum.byte_rate)));
  row("Scheduler a step",
      fmt::format("p50 {}, p99 {}", human_seconds(sum.schedule_p50), human_seconds(sum.schedule_p99)));
  const auto share = [&](double seconds) { return human_percent(seconds / sum.wall_seconds); };
  row("Where the time went", fmt::format("{} attention, {} scheduler, {} writing tokens into the cache, {} the rest",
                                         share(sum.attention_seconds), share(sum.schedule_seconds),
                                         share(sum.write_seconds), share(sum.other_seconds)));
  return "<table>" + rows + "</table>\n";
}

}  // namespace

std::string html_report(const ReplayResult& result, const ReplaySummary& sum) {
  std::string body =
      fmt::format("<h1>FlashMLA replay</h1>\n<p class=\"soft\">{}</p>\n", html_escaped(outcome_sentence(result, sum)));
  const bool wrong = result.verify && result.verify->wrong > 0;
  body += fmt::format("<p class=\"{}\">{}</p>\n", !result.verify ? "soft" : (wrong ? "bad" : "good"),
                      html_escaped(verify_sentence(result)));
  if (result.steps.empty()) return body;
  body += "<div class=\"tiles\">\n" + tile(human_count(sum.tokens_per_second), "tokens a second") +
          tile(human_seconds(sum.attention_p50), "attention a step, median") +
          tile(human_flop_rate(sum.flop_rate), "of attention") +
          tile(human_percent(sum.pool_use), "of the pages in use") +
          tile(fmt::format("{:.0f} x", sum.per_head.mean_bytes / sum.paged_latent.mean_bytes),
               "less memory than uncompressed heads") +
          "</div>\n";
  const std::vector<Bucket> buckets = bucketed(result, kBuckets);
  const Chart batch = batch_chart(buckets), pages = pages_chart(buckets, result), times = time_chart(buckets, sum);
  body += section("Batch",
                  fmt::format("{:.1f} requests decode together on average. Finished ones leave, waiting ones enter "
                              "as soon as pages allow.",
                              sum.mean_batch),
                  legend(batch) + svg_line_chart(batch));
  body += section("Pages",
                  "Requests get pages as they grow and give them back at once. A cache that pads to the longest "
                  "request would need the upper line.",
                  legend(pages) + svg_line_chart(pages));
  body += section("Step time",
                  "Attention of all layers in one step. It follows the tokens in the cache, and with them the "
                  "pages in use.",
                  legend(times) + svg_line_chart(times));
  body += section("Memory for the same batches", memory_caption(sum), memory_bars(sum));
  body += section("In words and figures", "", details(result, sum));
  body += fmt::format("<p class=\"soft\">flash-mla {}, seed {}.</p>\n", version(), result.seed);
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>FlashMLA "
      "replay</title>\n<style>{}</style></head>\n<body><main>\n"
      "{}</main></body>\n</html>\n",
      kStyle, body);
}

}  // namespace flash_mla::tools
