// The partials of cut units in the caller's scratch memory.
//
//   scratch:  values [2 * num_parts, rows_per_unit, 512] | rows PartialRow [2 * num_parts, rows_per_unit]
//             | gates u64 [num_parts, cohort]
//
// A part has at most two partials (of the unit it finds begun and of the unit it leaves unfinished). `lse` is the
// natural logarithm, -inf for an empty partial. A row's partial result is scale * value, with a scale for each 128
// columns: a power of two, chosen so that the largest value stands between 2^13 and 2^14 (f16 holds 2^16; values have
// 11 bits down to 2^-27 of the largest), over the sum of the weights. Rounding adds at most 2^-11 of a value, an eighth
// of what rounding the result to bf16 does, and halves what is written and read.
//
// Where a plan has few units of few rows, partials are items: f32 values, the accumulators as they are, and instead of
// a PartialRow the maximum and sum of the row for each 128 columns. They are small, and what they wait for is
// instructions.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.h"
#include "core/int_math.h"
#include "core/problem.h"
#include "flash_mla/plan.h"

namespace flash_mla::cuda {

inline constexpr int kScaledColumns = 128;
inline constexpr int kScales = kLatentDim / kScaledColumns;  // of a row

struct alignas(16) PartialRow {
  float scale[kScales];
  float lse;
  float unused[3];
};

// Pointers into scratch, as kernels use them.
struct Partials {
  std::uint16_t* values = nullptr;  // f16
  PartialRow* rows = nullptr;
  std::uint64_t* gates = nullptr;

  // Of row `row` of all slots.
  FLASH_MLA_HOST_DEVICE std::uint16_t* values_of(std::int64_t row) const { return values + row * kLatentDim; }
  // Of items.
  FLASH_MLA_HOST_DEVICE float* items_of(std::int64_t row) const {
    return reinterpret_cast<float*>(values) + row * kLatentDim;
  }
  // (maximum, sum) for each 128 columns.
  FLASH_MLA_HOST_DEVICE float* facts_of(std::int64_t row) const { return reinterpret_cast<float*>(rows + row); }
};

struct PartialsLayout {
  std::int32_t num_parts = 0;
  std::int32_t rows_per_unit = 0;
  std::int32_t cohort = 0;  // thread blocks that share a unit
  bool are_items = false;

  constexpr std::int64_t rows() const { return std::int64_t{2} * num_parts * rows_per_unit; }
  constexpr std::int64_t value_bytes() const { return are_items ? 4 : 2; }
  constexpr std::int64_t rows_offset_bytes() const { return rows() * kLatentDim * value_bytes(); }
  constexpr std::int64_t gates_offset_bytes() const {
    return round_up(rows_offset_bytes() + rows() * std::int64_t{sizeof(PartialRow)}, kScratchAlignmentBytes);
  }
  constexpr std::int64_t total_bytes() const {
    return round_up(gates_offset_bytes() + std::int64_t{num_parts} * cohort * 8, kScratchAlignmentBytes);
  }
  Partials at(void* scratch) const {
    char* const base = static_cast<char*>(scratch);
    return {reinterpret_cast<std::uint16_t*>(base), reinterpret_cast<PartialRow*>(base + rows_offset_bytes()),
            reinterpret_cast<std::uint64_t*>(base + gates_offset_bytes())};
  }
};

// A power of two and its inverse, both normal numbers.
struct PowerOfTwo {
  float factor = 1.0f, inverse = 1.0f;
};

// The one that brings `largest`, finite and not negative, to [2^13, 2^14), or as near as normal numbers allow.
FLASH_MLA_HOST_DEVICE PowerOfTwo scale_to_f16(float largest) {
  constexpr std::uint32_t kBias = 127, kTarget = 13, kMantissaBits = 23;
  std::uint32_t bits;
  std::memcpy(&bits, &largest, sizeof bits);
  const std::uint32_t exponent = max_of(bits >> kMantissaBits, kTarget + 1);
  const std::uint32_t factor = (2 * kBias + kTarget - exponent) << kMantissaBits;
  const std::uint32_t inverse = (exponent - kTarget) << kMantissaBits;
  PowerOfTwo power;
  std::memcpy(&power.factor, &factor, sizeof factor);
  std::memcpy(&power.inverse, &inverse, sizeof inverse);
  return power;
}

}  // namespace flash_mla::cuda
