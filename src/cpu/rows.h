// Kernels over rows of floats, vectorised and dispatched at run time: conversion between dtypes, pairing of tokens for
// the values product, scaling. Used by load, epilogue, merge and append.
#pragma once

#include <cstdint>

#include "cpu/products.h"
#include "flash_mla/types.h"

namespace flash_mla::cpu {

// n elements, n a multiple of 16.
void convert_to_f32(const void* from, DType from_type, float* to, std::int64_t n);
// to = factor * from, rounded to nearest even.
void scale_to(const float* from, float factor, void* to, DType to_type, std::int64_t n);
// to *= factor
void scale_row(float* to, float factor, std::int64_t n);
// to += factor * from
void add_scaled(const void* from, DType from_type, float factor, float* to, std::int64_t n);

// Interleaves bf16 tokens 2p and 2p + 1 of 512 columns into one row of pairs per panel of 64 columns:
//   panels[panel * panel_stride + p * 128 + 2 * column + parity] = tokens[(2p + parity) * 576 + 64 * panel + column]
void pair_tokens(const std::uint16_t* tokens, std::int64_t pairs, std::uint16_t* panels, std::int64_t panel_stride);

}  // namespace flash_mla::cpu
