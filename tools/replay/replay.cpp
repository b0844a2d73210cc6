// See replay.h.
#include "replay/replay.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>

#include "flash_mla/info.h"
#include "support/device.h"
#include "support/element.h"
#include "support/errors.h"
#include "support/human.h"
#include "support/output.h"
#include "support/progress.h"

namespace flash_mla::tools {
namespace {

constexpr double kDefaultSeconds = 60;

volatile std::sig_atomic_t interrupted = 0;

// Ctrl-C ends the run after the current step, with all its reports; a second one kills the program.
class InterruptGuard {
 public:
  InterruptGuard()
      : previous_(std::signal(SIGINT, [](int) {
          interrupted = 1;
          std::signal(SIGINT, SIG_DFL);
        })) {
    interrupted = 0;
  }
  ~InterruptGuard() { std::signal(SIGINT, previous_); }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  void (*previous_)(int);
};

// When to stop. A limit of 0 is none.
struct Limits {
  std::int64_t steps = 0;
  double seconds = 0;

  explicit Limits(const ReplayOptions& options)
      : steps(options.steps), seconds(options.seconds >= 0 ? options.seconds : (steps > 0 ? 0 : kDefaultSeconds)) {}

  // Why to stop now, in words; empty: go on.
  [[nodiscard]] std::string reached(const Engine& engine, std::int64_t steps_done, double seconds_gone) const {
    if (engine.done()) return "every request was served";
    if (interrupted != 0) return "interrupted";
    if (steps > 0 && steps_done >= steps) return fmt::format("stopped after {} steps", steps);
    if (seconds > 0 && seconds_gone >= seconds) return fmt::format("stopped after {}", human_seconds(seconds));
    return {};
  }
  [[nodiscard]] double share(const EngineCounts& counts, std::int64_t steps_done, double seconds_gone) const {
    double share = static_cast<double>(counts.finished) / static_cast<double>(counts.requests);
    if (steps > 0) share = std::max(share, static_cast<double>(steps_done) / static_cast<double>(steps));
    if (seconds > 0) share = std::max(share, seconds_gone / seconds);
    return share;
  }
};

PagedKvCache make_cache(const ReplayOptions& options, DType dtype, Device device) {
  PagedKvCacheConfig config;
  config.device = device;
  config.dtype = dtype;
  config.num_layers = options.layers;
  config.num_pages = options.pages;
  config.page_size = options.page_size;
  Result<PagedKvCache> cache = PagedKvCache::create(config);
  accept(cache.status());
  return must(std::move(cache), "page pool");
}

// No request runs without a page, so more than that would only cost memory.
std::int32_t most_running(const ReplayOptions& options, const Trace& trace) {
  const auto requests = static_cast<std::int64_t>(trace.requests.size());
  return static_cast<std::int32_t>(std::min<std::int64_t>({options.max_batch, options.pages, requests}));
}

StepRecord record_of(const Engine& engine, const PagedKvCache& cache) {
  StepRecord record;
  record.batch = static_cast<std::int32_t>(engine.running().size());
  for (const RunningRequest& request : engine.running()) {
    record.tokens += request.length;
    record.longest_tokens = std::max(record.longest_tokens, request.length);
  }
  const PagedKvCacheStats stats = cache.stats();
  record.pages_in_use = stats.pages_in_use;
  record.internal_fragmentation = stats.internal_fragmentation;
  return record;
}

// The serving loop.
void serve_steps(Engine& engine, Attention& attention, const PagedKvCache& cache, Verifier& verifier,
                 const Limits& limits, ReplayResult& result) {
  const InterruptGuard guard;
  ProgressBar progress;
  const auto start = std::chrono::steady_clock::now();
  const auto gone = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  for (std::int64_t step = 0; (result.stopped_by = limits.reached(engine, step, gone())).empty(); ++step) {
    const std::int64_t preemptions_before = engine.counts().preemptions;
    engine.begin_step();
    if (engine.running().empty()) continue;  // what was left had nothing to generate
    StepRecord record = record_of(engine, cache);
    record.preemptions = engine.counts().preemptions - preemptions_before;
    record.times = attention.run(step, engine.running(), [&](const LayerResult& layer) { verifier.collect(layer); });
    engine.end_step();
    record.end_seconds = gone();
    result.steps.push_back(record);
    if (progress.due()) {
      const EngineCounts counts = engine.counts();
      progress.show(limits.share(counts, step + 1, record.end_seconds),
                    fmt::format("{}  step {}  {} running  {} finished  {} waiting  {} tokens/s",
                                human_seconds(record.end_seconds), human_count(step + 1), counts.running,
                                human_count(counts.finished), human_count(counts.waiting),
                                human_count(static_cast<double>(counts.generated_tokens) / record.end_seconds)));
    }
  }
}

}  // namespace

Trace load_trace(const ReplayOptions& options) {
  return options.trace_path.empty() ? built_in_trace(options.num_requests, options.seed)
                                    : read_trace(options.trace_path);
}

ReplayResult serve(const ReplayOptions& options, const std::function<void(const ReplayResult&)>& announce) {
  Trace trace = load_trace(options);
  ReplayResult result;
  result.skipped_too_long = drop_too_long(trace, options.pages, options.page_size, options.skip_too_long);
  const DType dtype = parse_dtype(options.dtype);
  const std::unique_ptr<DeviceContext> device = open_device(options.backend);
  PagedKvCache cache = make_cache(options, dtype, device->device());
  const AttentionConfig config{.dtype = dtype,
                               .heads = options.heads,
                               .layers = options.layers,
                               .max_batch = most_running(options, trace),
                               .seed = options.seed};
  Attention attention(*device, config, cache);
  Verifier verifier(*device, config, options.verify);
  Engine engine(trace.requests, config.max_batch, cache);

  result.trace_source = trace.source;
  result.backend = to_string(device->device().type);
  result.device_name = must(device_info(device->device()), "device_info").name;
  result.dtype = dtype;
  result.heads = options.heads, result.layers = options.layers;
  result.num_pages = options.pages, result.page_size = options.page_size, result.max_batch = config.max_batch;
  result.num_parts = attention.plan().num_parts();
  result.seed = options.seed;
  if (announce) announce(result);
  serve_steps(engine, attention, cache, verifier, Limits(options), result);
  result.counts = engine.counts();
  result.recorded_steps = static_cast<std::int64_t>(attention.recordings());
  if (options.verify > 0) result.verify = verifier.check(attention.rows());
  return result;
}

int run_replay(const ReplayOptions& options) {
  // With --json - standard output is the JSON document alone.
  std::FILE* out = options.json_path == "-" ? stderr : stdout;
  const ReplayResult result = serve(options, [&](const ReplayResult& ready) {
    fmt::print(out, "Replay of {} on {} ({}): {} heads, {} layer{}, {}, at most {} requests at once\n",
               ready.trace_source, ready.device_name, ready.backend, ready.heads, ready.layers,
               ready.layers == 1 ? "" : "s", to_string(ready.dtype), ready.max_batch);
    std::fflush(out);
  });
  const ReplaySummary summary = summarize(result);
  fmt::print(out, "{}", text_report(result, summary));
  if (!options.html_path.empty()) {
    write_text(options.html_path, html_report(result, summary));
    fmt::print(out, "\nThe page with the pictures: {}\n", options.html_path);
  }
  if (!options.json_path.empty()) write_json(options.json_path, json_report(result, summary));
  return result.verify && result.verify->wrong > 0 ? kFailure : kSuccess;
}

}  // namespace flash_mla::tools
