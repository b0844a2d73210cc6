// `flash-mla replay`: serves a trace with continuous batching.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "replay/report.h"
#include "replay/trace.h"

namespace flash_mla::tools {

struct ReplayOptions {
  std::string trace_path;  // empty: the built-in distribution
  std::int64_t num_requests = 20000;
  bool skip_too_long = false;

  std::string backend;  // empty: the GPU when there is one
  std::string dtype = "bf16";
  std::int32_t heads = 128;
  std::int32_t layers = 1;
  std::int32_t pages = 1024;
  std::int32_t page_size = 64;
  std::int32_t max_batch = 256;
  std::uint64_t seed = 1;

  std::int64_t steps = 0;  // 0: no limit
  double seconds = -1;     // 0: serve all; negative: 60, or no limit when steps is given
  std::int64_t verify = 0;

  std::string json_path, html_path;
};

Trace load_trace(const ReplayOptions& options);

// Serves the trace; draws a progress bar on a terminal and prints nothing else. `announce` is called when all is ready,
// with what will be served and where.
ReplayResult serve(const ReplayOptions& options, const std::function<void(const ReplayResult&)>& announce = {});

// Serves, prints and writes the reports. Returns the exit code: kFailure when a checked row is wrong.
int run_replay(const ReplayOptions& options);

}  // namespace flash_mla::tools
