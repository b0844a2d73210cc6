// Random numbers that are the same on every machine: SplitMix64 as a counter-based hash and as a stream, and an
// approximately normal number from one hash (the sum of four uniform 16-bit numbers, mean 0, variance 1), which is
// cheap enough to fill gigabytes.
#pragma once

#include <cmath>
#include <cstdint>

namespace flash_mla::tools {

inline constexpr std::uint64_t kGoldenGamma = 0x9e3779b97f4a7c15u;

[[nodiscard]] constexpr std::uint64_t hash(std::uint64_t x) noexcept {
  x += kGoldenGamma;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

[[nodiscard]] constexpr std::uint64_t hash(std::uint64_t a, std::uint64_t b) noexcept { return hash(hash(a) ^ b); }

[[nodiscard]] inline float normal_from(std::uint64_t bits) noexcept {
  const std::uint64_t sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
  constexpr float kMean = 4 * 65535.0f / 2, kDeviation = 37837.2275f;  // 65536 * sqrt(4 / 12)
  return (static_cast<float>(sum) - kMean) / kDeviation;
}

class Random {
 public:
  explicit constexpr Random(std::uint64_t seed) noexcept : state_(hash(seed)) {}

  constexpr std::uint64_t next() noexcept {
    const std::uint64_t bits = hash(state_);
    state_ += kGoldenGamma;
    return bits;
  }
  // In [0, n), n > 0. The bias is below 2^-32 for every n used here.
  constexpr std::int64_t below(std::int64_t n) noexcept {
    return static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(n));
  }
  // In (0, 1): never 0, so that its logarithm is finite.
  constexpr double uniform() noexcept { return (static_cast<double>(next() >> 11) + 0.5) * 0x1p-53; }
  float normal() noexcept { return normal_from(next()); }

 private:
  std::uint64_t state_;
};

}  // namespace flash_mla::tools
