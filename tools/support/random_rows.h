// Random rows of 576 elements ~ N(0, 1), made once and looked up by a hash, so that filling a cache costs one memcpy a
// token and anyone can say later, from (seed, request, token, layer) alone, what must lie in the cache there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "flash_mla/types.h"

namespace flash_mla::tools {

// n elements ~ N(0, 1) of that type.
std::vector<std::byte> random_elements(DType dtype, std::int64_t n, std::uint64_t seed);

class RandomRows {
 public:
  RandomRows(DType dtype, std::uint64_t seed);

  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] std::int64_t row_bytes() const noexcept { return row_bytes_; }
  // The latent (512) and rope (64) elements of a token.
  [[nodiscard]] const std::byte* row(std::int64_t request, std::int64_t token, std::int64_t layer) const noexcept;

 private:
  DType dtype_;
  std::int64_t row_bytes_;
  std::uint64_t seed_;
  std::vector<std::byte> table_;
};

}  // namespace flash_mla::tools
