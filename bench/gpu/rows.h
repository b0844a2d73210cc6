// The rows to measure and what others reach on them: bench/peers/<gpu>.json.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace bench {

struct Row {
  int batch = 0, seqlen_q = 1, heads = 0;
  std::string lens, regime;
  int nominal_length = 0;             // s_k of the file; 0 when the lengths come from a trace
  std::vector<std::int32_t> seqlens;  // [batch]
  bool sustained = false;             // the file has sustained times for this row
  nlohmann::json source;              // the file's row

  double tokens() const;
  std::int64_t pages() const;  // of 64 tokens
  double flop() const;         // 2 * s_q * h * tokens * (576 + 512)
  double bytes() const;        // 1152 * tokens + 2 * b * s_q * h * (576 + 512)
  // max(bytes / paged read, flop / multicast L2 mix), without launch or latency.
  double floor_us(const nlohmann::json& roof) const;
  std::string name() const;
};

// Throws std::runtime_error when the file cannot be read.
nlohmann::json read_json(const std::string& path);
std::vector<Row> read_rows(const nlohmann::json& file);

}  // namespace bench
