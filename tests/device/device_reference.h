// The reference and its judgement on the GPU: as naive as tests/reference, in double precision, one thread block a row,
// for grids too large for the CPU. Itself checked against the CPU's in device_reference_test.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "flash_mla/decode.h"
#include "reference/compare.h"
#include "reference/reference.h"

namespace flash_mla::reference {

// Rows of the problem that `args` describes, all of whose tensors are on the GPU. Throws std::runtime_error naming the
// call when the GPU fails.
[[nodiscard]] std::vector<ReferenceRow> rows_on_device(const DecodeArgs& args, bool causal,
                                                       std::span<const RowId> rows);

// The rows of args.out and args.lse; lse is NaN when there is none.
[[nodiscard]] std::vector<Row> results_on_device(const DecodeArgs& args, std::span<const RowId> rows);

// compare_rows() of compare.h for tensors on the GPU.
[[nodiscard]] Comparison compare_on_device(const DecodeArgs& args, bool causal, std::span<const RowId> rows);
[[nodiscard]] Comparison compare_on_device(const DecodeArgs& args, bool causal, std::span<const RowId> rows,
                                           const Bound& bound);

}  // namespace flash_mla::reference
