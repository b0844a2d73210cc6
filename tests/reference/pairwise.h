// Pairwise-covering sets: few cases in which every two choices of any two axes meet at least once.
#pragma once

#include <cstdint>
#include <vector>

namespace flash_mla::reference {

// Axis a has choices 0 .. sizes[a] - 1. Each case is one choice for every axis. Greedy and seeded: the best of some
// random completions of an uncovered pair, until none is left.
[[nodiscard]] std::vector<std::vector<int>> pairwise_cases(const std::vector<int>& sizes, std::uint64_t seed);

}  // namespace flash_mla::reference
