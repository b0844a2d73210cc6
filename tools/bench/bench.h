// `flash-mla bench`: times decode on given shapes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/rows.h"

namespace flash_mla::tools {

struct BenchOptions {
  std::string rows_path;  // empty: the shapes of the flags
  std::vector<std::int64_t> batch = {1, 32}, heads = {16, 128}, seqlen_q = {1}, seqlen_k = {1024};
  std::vector<std::int32_t> seqlens;  // replaces batch and seqlen_k
  std::string lens = "uniform";
  std::int64_t page_size = 64;
  bool full = false;  // not causal

  std::string backend, dtype = "bf16";
  double budget = 1, max_seconds = 10, max_memory_gib = 0;
  std::int64_t limit = 0;
  std::uint64_t seed = 1;
  std::string json_path;
};

std::vector<BenchRow> bench_rows(const BenchOptions& options);

int run_bench(const BenchOptions& options);

}  // namespace flash_mla::tools
