// The shapes that `flash-mla bench` times: from flags, or from a JSON file
//   {"rows": [{"b": 128, "s_q": 1, "h": 16, "s_k": 4096, "lens": "uniform"}, ...]}     (or the bare array)
// where "seqlens" may hold the b lengths, and "page_size" and "causal" may be given; other keys are left alone.
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace flash_mla::tools {

struct BenchRow {
  std::int64_t b = 0, s_q = 1, h = 0, s_k = 0;
  std::string lens =
      "uniform";       // uniform; normal: N(s_k, s_k / 2) clipped at s_q; conv: a running batch of a chat service
  std::string regime;  // a label of the file's; may be empty
  std::int64_t page_size = 64;
  bool causal = true;
  bool seqlens_given = false;
  std::vector<std::int32_t> seqlens;  // [b]

  [[nodiscard]] double total_tokens() const;
  [[nodiscard]] double flop() const;                    // 2 * s_q * h * sum(seqlens) * (576 + 512)
  [[nodiscard]] double bytes(int element_bytes) const;  // cache once, q and out once
  [[nodiscard]] std::string text() const;               // "b 128, s_q 1, h 16, s_k 4096 uniform"
};

// Fills in seqlens where they were not given, and checks every figure; `where` names the row in errors.
void complete_row(BenchRow& row, std::uint64_t seed, const std::string& where);

// Throws InputError naming the file, the row and the key.
std::vector<BenchRow> parse_bench_rows(std::istream& input, const std::string& name, std::uint64_t seed);
std::vector<BenchRow> read_bench_rows(const std::string& path, std::uint64_t seed);

}  // namespace flash_mla::tools
