// Checks sampled rows of a replay against the fp64 reference. Every (step, layer, request, head) is equally likely to
// be among the N rows (reservoir sampling); a sampled row's query and result are kept and checked when the replay is
// over. The keys are made again from (request, token, layer), not read from the pool, so a page that went to the wrong
// request, or a token that was lost on preemption, shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "replay/attention.h"
#include "support/device.h"
#include "support/random.h"

namespace flash_mla::tools {

// Which of the rows 0, 1, 2, ... to keep so that at any time the kept ones are a uniform sample (Li 1994, Algorithm L).
class Reservoir {
 public:
  Reservoir(std::int64_t size, std::uint64_t seed);

  [[nodiscard]] std::int64_t next() const noexcept { return next_; }  // the next row to keep
  [[nodiscard]] std::int64_t slot() const noexcept { return slot_; }  // the place to keep it in
  void advance();

 private:
  void skip();

  std::int64_t size_;
  Random random_;
  double weight_ = 1;
  std::int64_t next_ = 0;
  std::int64_t slot_ = 0;
};

struct VerifyReport {
  std::int64_t rows = 0;
  std::int64_t rows_seen = 0;  // rows that the sample was drawn from
  std::int64_t wrong = 0;
  double worst = 0;        // the worst row's share of its error bound
  std::string worst_text;  // that row in a sentence
};

class Verifier {
 public:
  Verifier(DeviceContext& device, const AttentionConfig& config, std::int64_t rows);

  void collect(const LayerResult& result);
  [[nodiscard]] VerifyReport check(const RandomRows& rows) const;

 private:
  struct Sample {
    std::int64_t step = 0, request = 0, length = 0;
    std::int32_t layer = 0, head = 0;
    std::vector<std::byte> q, out;
    float lse = 0;
  };

  void keep(const LayerResult& result, std::int64_t row);

  DeviceContext& device_;
  AttentionConfig config_;
  std::int64_t wanted_;
  Reservoir reservoir_;
  std::int64_t rows_seen_ = 0;
  std::vector<Sample> samples_;
};

}  // namespace flash_mla::tools
