// Kernels over rows of floats, vectorised and dispatched at run time: gathering with conversion, pairing of tokens for
// the values product, scaling. Used by load, epilogue and merge.
#pragma once

#include <cstdint>

#include "cpu/products.h"
#include "flash_mla/types.h"

namespace flash_mla::cpu {

inline constexpr int kPanelColumns = 64;

// Rows of 576 in two parts; strides in elements.
struct SourceRows {
  const void* latent = nullptr;
  const void* rope = nullptr;
  std::int64_t latent_stride = 0;
  std::int64_t rope_stride = 0;
  std::int64_t rows = 0;
};

// Copies rows to `to` [rows, 576] of the compute type; bf16 only from bf16.
void gather_rows(const SourceRows& from, DType from_type, ComputeType to_type, void* to);

// The same for bf16, unless `to` is null, and in the same pass interleaves rows 2p and 2p + 1 of the latent part into
// one row of pairs per panel of 64 columns:
//   panels[panel * panel_stride + p * 128 + 2 * column + parity] = row[2p + parity][64 * panel + column]
// The row that an odd last one lacks counts as 0.
void gather_paired_rows(const SourceRows& from, std::uint16_t* to, std::uint16_t* panels, std::int64_t panel_stride);
// Zeroes pairs [first, last) of every panel.
void clear_pairs(std::uint16_t* panels, std::int64_t panel_stride, std::int64_t first, std::int64_t last);

// n elements, n a multiple of 16, from here on.
// to = factor * from, rounded to nearest even.
void scale_to(const float* from, float factor, void* to, DType to_type, std::int64_t n);
// to *= factor
void scale_row(float* to, float factor, std::int64_t n);
// to += factor * from
void add_scaled(const void* from, DType from_type, float factor, float* to, std::int64_t n);

}  // namespace flash_mla::cpu
