// See cli.h.
#include "cli.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <new>

#include "bench/bench.h"
#include "check.h"
#include "flash_mla/version.h"
#include "info.h"
#include "replay/replay.h"
#include "support/errors.h"

namespace flash_mla::tools {
namespace {

using Command = std::function<int()>;

constexpr std::int32_t kMostRequests = 1 << 20;
constexpr std::int32_t kMostHeads = 1 << 12;

// A finite number from `least` on; CLI11's own checks let NaN pass.
CLI::Validator finite(double least, bool least_allowed) {
  const auto test = [=](const std::string& text) -> std::string {
    double value = 0;
    const bool fine = CLI::detail::lexical_cast(text, value) && std::isfinite(value) &&
                      (value > least || (least_allowed && value == least));
    return fine ? ""
                : fmt::format("{} is not a finite number {} {}", text, least_allowed ? "of at least" : "above", least);
  };
  return CLI::Validator(test, "NUMBER");
}

void add_backend(CLI::App& app, std::string& backend) {
  app.add_option("--backend", backend, "cpu or cuda; without it, the GPU when there is one")
      ->check(CLI::IsMember({"cpu", "cuda"}));
}

CLI::Option* add_dtype(CLI::App& app, std::string& dtype) {
  return app.add_option("--dtype", dtype, "Type of queries, cache and results: bf16, f16, or f32 (CPU only)")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}));
}

void add_json(CLI::App& app, std::string& path) {
  app.add_option("--json", path, "Write the results as JSON to this file; - is standard output");
}

void add_seed(CLI::App& app, std::uint64_t& seed) {
  app.add_option("--seed", seed, "Seed of all random numbers")->capture_default_str();
}

void add_info(CLI::App& program, Command& command) {
  auto options = std::make_shared<InfoOptions>();
  CLI::App& app =
      *program.add_subcommand("info", "Say what this build can do here, and what would run for a shape and why");
  add_backend(app, options->backend);
  add_dtype(app, options->dtype)->capture_default_str();
  app.add_option("--batch", options->batch, "Requests")->check(CLI::Range(0, kMostRequests))->capture_default_str();
  app.add_option("--heads", options->heads, "Query heads")->check(CLI::Range(1, kMostHeads))->capture_default_str();
  app.add_option("--seqlen-q", options->seqlen_q, "Query tokens of a request")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--page-size", options->page_size, "Tokens of a page")->capture_default_str();
  add_json(app, options->json_path);
  app.callback([&command, options] { command = [options] { return run_info(*options); }; });
}

void add_check(CLI::App& program, Command& command) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App& app = *program.add_subcommand(
      "check", "Decode a grid of shapes and compare with a double precision reference; exit code 1 if one is wrong");
  app.add_flag("--quick", options->quick, "A tenth of the grid");
  add_backend(app, options->backend);
  add_dtype(app, options->dtype)->default_str("all");
  app.add_option("--rows", options->max_rows, "Rows compared in each shape, at most")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->capture_default_str();
  add_seed(app, options->seed);
  add_json(app, options->json_path);
  app.callback([&command, options] { command = [options] { return run_check(*options); }; });
}

void add_bench(CLI::App& program, Command& command) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App& app =
      *program.add_subcommand("bench", "Time decode on shapes from flags (lists are combined) or from a JSON file");
  CLI::Option* rows =
      app.add_option("--rows", options->rows_path,
                     "JSON file {\"rows\": [{\"b\", \"s_q\", \"h\", \"s_k\", \"lens\", \"seqlens\"}, ...]}");
  const auto list = [&](const char* flag, auto& values, const char* text) {
    return app.add_option(flag, values, text)->delimiter(',')->capture_default_str()->excludes(rows);
  };
  CLI::Option* batch = list("--batch", options->batch, "Requests: one number or several");
  list("--heads", options->heads, "Query heads");
  list("--seqlen-q", options->seqlen_q, "Query tokens of a request");
  CLI::Option* seqlen_k = list("--seqlen-k", options->seqlen_k, "Cached tokens of a request");
  list("--seqlens", options->seqlens, "The length of each request of one batch")->excludes(batch)->excludes(seqlen_k);
  app.add_option("--lens", options->lens,
                 "Lengths: uniform; normal, N(s_k, s_k / 2); conv, a running batch of a chat service")
      ->check(CLI::IsMember({"uniform", "normal", "conv"}))
      ->capture_default_str()
      ->excludes(rows);
  app.add_option("--page-size", options->page_size, "Tokens of a page")->capture_default_str()->excludes(rows);
  app.add_flag("--full", options->full, "No causal mask")->excludes(rows);
  add_backend(app, options->backend);
  add_dtype(app, options->dtype)->capture_default_str();
  app.add_option("--budget", options->budget, "Seconds of timing for each row; never fewer than 3 calls")
      ->check(finite(0, false))
      ->capture_default_str();
  app.add_option("--max-seconds", options->max_seconds, "Skip rows, with a line, whose call would take longer")
      ->check(finite(0, false))
      ->capture_default_str();
  app.add_option("--max-memory", options->max_memory_gib, "GiB for the caches; without it, 40 % of the memory")
      ->check(finite(0, false));
  app.add_option("--limit", options->limit, "Only the first rows")->check(CLI::PositiveNumber);
  add_seed(app, options->seed);
  add_json(app, options->json_path);
  app.callback([&command, options] { command = [options] { return run_bench(*options); }; });
}

void add_replay(CLI::App& program, Command& command) {
  auto options = std::make_shared<ReplayOptions>();
  CLI::App& app = *program.add_subcommand(
      "replay",
      "Serve a trace of requests with continuous batching over a paged cache.\n"
      "Requests arrive with their context in the cache; every step appends a token to each running request and decodes "
      "all of them. Finished requests free their pages, waiting ones enter in order of arrival when pages allow, and "
      "when "
      "the pool runs dry the youngest is preempted and resumed later. The queue is always full: trace times give the "
      "order only. Ctrl-C ends the run with its report");
  CLI::Option* trace = app.add_option("--trace", options->trace_path,
                                      "CSV file TIMESTAMP,ContextTokens,GeneratedTokens; without it requests are drawn "
                                      "from a built-in distribution of a chat service");
  app.add_option("--num-requests", options->num_requests, "Requests to draw when there is no trace")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->capture_default_str()
      ->excludes(trace);
  app.add_flag("--skip-too-long", options->skip_too_long,
               "Leave out requests that can never fit into the pool, instead of refusing the trace");
  add_backend(app, options->backend);
  add_dtype(app, options->dtype)->capture_default_str();
  app.add_option("--heads", options->heads, "Query heads")->check(CLI::Range(1, kMostHeads))->capture_default_str();
  app.add_option("--layers", options->layers, "Layers, each with a cache of its own")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--pages", options->pages, "Pages of the pool, in each layer")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--page-size", options->page_size, "Tokens of a page: 16, 32, 64 or a multiple of 64")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--max-batch", options->max_batch, "Requests that run at once, at most")
      ->check(CLI::Range(1, kMostRequests))
      ->capture_default_str();
  app.add_option("--steps", options->steps, "Stop after that many steps")->check(CLI::PositiveNumber);
  app.add_option("--seconds", options->seconds, "Stop after that many seconds; 0 serves every request to its end")
      ->check(finite(0, true))
      ->default_str("60, or no limit with --steps");
  add_seed(app, options->seed);
  app.add_option("--verify", options->verify,
                 "Check so many sampled rows against the reference; exit code 1 if one is wrong")
      ->check(CLI::Range(0, 1'000'000));
  add_json(app, options->json_path);
  app.add_option("--html", options->html_path,
                 "Write a page with pictures to this file (flash-mla-replay.html if none is named)")
      ->expected(0, 1)
      ->default_str("flash-mla-replay.html");
  app.callback([&command, options] { command = [options] { return run_replay(*options); }; });
}

int fail(ExitCode code, const std::exception& error) {
  fmt::print(stderr, "flash-mla: {}\n", error.what());
  return code;
}

}  // namespace

int run_program(int argc, const char* const* argv) {
  CLI::App app(
      "FlashMLA: Multi-head Latent Attention decoding over a paged cache.\n"
      "Exit codes: 0 all is well, 1 something went wrong or a check failed, 2 wrong flags or input.",
      "flash-mla");
  app.set_version_flag("--version", version());
  app.require_subcommand(1);
  Command command;
  add_info(app, command);
  add_check(app, command);
  add_bench(app, command);
  add_replay(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kSuccess : kWrongInput;
  }
  try {
    return command();
  } catch (const InputError& error) {
    return fail(kWrongInput, error);
  } catch (const std::bad_alloc&) {
    return fail(kFailure, RunError("out of memory"));
  } catch (const std::exception& error) {
    return fail(kFailure, error);
  }
}

}  // namespace flash_mla::tools
