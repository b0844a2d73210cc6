// The ceiling: the rate at which oneDNN multiplies the tiles themselves, on all cores, operands hot in each core's
// cache, everything prepared outside the clock.
#pragma once

#include <string>
#include <vector>

namespace flash_mla::bench {

struct TileRate {
  std::string setup;  // which operand is packed
  double gflops = 0;  // on all cores
};

// The two products of `rows` rows with one block of 64 tokens: rows x 576 x 64 and rows x 64 x 512. Each is timed in
// several set-ups and the best one counts.
struct Ceiling {
  std::string dtype;  // "bf16", "f32"
  int rows = 0;
  TileRate scores, values;
  double gflops = 0;  // of both together: their flop by the sum of their times
};

class CeilingBench {
 public:
  explicit CeilingBench(int rows);
  ~CeilingBench();
  CeilingBench(const CeilingBench&) = delete;
  CeilingBench& operator=(const CeilingBench&) = delete;

  // bf16 (where the machine has it) and f32.
  std::vector<Ceiling> measure(double seconds_per_setup);

 private:
  struct Setup;
  std::vector<Setup> setups_;
  int rows_;
};

}  // namespace flash_mla::bench
