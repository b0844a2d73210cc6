// What the tests of gates and of rolls have in common: how many thread blocks talk, and what their words held before.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/combine/merge_params.h"

namespace flash_mla::test {

inline constexpr std::uint64_t kGateTag = 0x5a5a5a5ull << cuda::kGateTagBit;

// Thread block b is split b mod splits of unit b / splits. The shared memory that it takes decides how many fit.
struct GateCase {
  int units, splits, shared_memory_bytes, longest_sleep_ns;
};

inline std::vector<GateCase> gate_cases_that_fit() {
  std::vector<GateCase> cases;
  for (const int sleep : {0, 20'000}) {
    cases.push_back({1, 132, 16, sleep});
    cases.push_back({40, 3, 16, sleep});
    cases.push_back({66, 2, 200 << 10, sleep});
  }
  return cases;
}

inline std::vector<GateCase> gate_cases_that_do_not_fit() {
  return {{1, 700, 200 << 10, 0}, {5, 250, 200 << 10, 5'000}, {500, 2, 200 << 10, 5'000}};
}

// All bits, the launch's tag with counts that cannot be, anything.
inline std::vector<std::uint64_t> garbage_words(int units) {
  std::vector<std::uint64_t> words;
  for (std::uint64_t u = 0; u < static_cast<std::uint64_t>(units); ++u) {
    const std::uint64_t any = (u + 1) * 0x9e3779b97f4a7c15ull;
    const std::uint64_t counts = any >> (64 - cuda::kGateTagBit) | 1;  // published, but by far more than have started
    words.push_back(u % 3 == 0 ? ~0ull : u % 3 == 1 ? kGateTag | (counts & ~(0x7ffull << cuda::kGateCountBits)) : any);
  }
  return words;
}

}  // namespace flash_mla::test
