// See random_rows.h.
#include "support/random_rows.h"

#include "flash_mla/plan.h"
#include "support/element.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {
constexpr std::int64_t kTableRows = 4096;
}

std::vector<std::byte> random_elements(DType dtype, std::int64_t n, std::uint64_t seed) {
  std::vector<std::byte> elements(static_cast<std::size_t>(n * size_in_bytes(dtype)));
  Random random(seed);
  for (std::int64_t i = 0; i < n; ++i) store_element(dtype, elements.data(), i, random.normal());
  return elements;
}

RandomRows::RandomRows(DType dtype, std::uint64_t seed)
    : dtype_(dtype),
      row_bytes_(std::int64_t{kHeadDim} * size_in_bytes(dtype)),
      seed_(hash(seed, 0x726f7773)),
      table_(random_elements(dtype, kTableRows * kHeadDim, seed_)) {}

const std::byte* RandomRows::row(std::int64_t request, std::int64_t token, std::int64_t layer) const noexcept {
  const std::uint64_t place =
      hash(seed_ ^ static_cast<std::uint64_t>(request) << 20 ^ static_cast<std::uint64_t>(layer),
           static_cast<std::uint64_t>(token));
  return table_.data() + static_cast<std::int64_t>(place % kTableRows) * row_bytes_;
}

}  // namespace flash_mla::tools
