// Times decode() on one row. Scheduled once beforehand, as a model does for all its layers; the calls rotate over
// enough separate caches, their pages shuffled together, that none is found in the last-level cache.
#pragma once

#include <cstdint>
#include <string>

#include "bench/rows.h"
#include "flash_mla/types.h"
#include "support/device.h"
#include "support/random_rows.h"

namespace flash_mla::tools {

struct MeasureOptions {
  DType dtype = DType::bf16;
  double budget_seconds = 1;     // of timing, for each row
  double max_call_seconds = 10;  // rows whose call is expected to take longer are skipped
  double max_memory_bytes = 0;   // of the caches
  double cold_bytes = 0;         // the caches together are at least that large, where memory allows
  std::uint64_t seed = 1;
};

struct Measurement {
  std::string skipped;  // why; empty when it was timed
  double seconds = 0;   // median of a call
  double lowest = 0, highest = 0;
  std::int64_t calls = 0;   // timed
  std::int64_t copies = 0;  // separate caches that the calls rotate over
  double cache_bytes = 0;   // of all copies
  bool cold = false;        // all copies together are at least cold_bytes
};

// Remembers how fast rows of a kind are, to foresee the time of long ones.
class Measurer {
 public:
  Measurer(DeviceContext& device, const MeasureOptions& options);

  Measurement measure(const BenchRow& row);

 private:
  [[nodiscard]] double flop_rate(const BenchRow& row);

  DeviceContext& device_;
  MeasureOptions options_;
  RandomRows rows_;
  std::int64_t rate_rows_ = -1;  // s_q * h that the rate was taken for
  double rate_ = 0;
};

}  // namespace flash_mla::tools
