// Numbers and tables for people: 1536 bytes are "1.50 KiB", 0.0021 s are "2.10 ms".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace flash_mla::tools {

std::string human_bytes(double bytes);          // "1.50 KiB"
std::string human_seconds(double seconds);      // "2.10 ms", "1 min 05 s"
std::string human_flops(double flop);           // "3.21 TFLOP"
std::string human_flop_rate(double flop_rate);  // "412 GFLOPS"
std::string human_byte_rate(double byte_rate);  // "38.1 GB/s", decimal as bandwidths are
std::string human_count(std::int64_t count);    // "1,234,567"
std::string human_count(double count);          // "1,234.5"; decimals only below 100
std::string human_percent(double share);        // 0.123 -> "12.3 %"

// value at share p in [0, 1] of the sorted values (nearest rank); 0 for none.
double percentile(std::vector<double> values, double p);

// A table with aligned columns: the first to the left, the others to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace flash_mla::tools
