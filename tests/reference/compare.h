// Are results right? Row by row against the reference:
//   |out - exact|_2 <= 1.5 * |model - exact|_2 + slack * |exact|_2     |lse - exact| <= 1e-5 + 3e-5 * |exact|
// and exactly the elements that should be NaN, +inf or -inf are. The slack, for sums in fp32, is 2^-10 with bf16 and
// fp16 tensors and 2^-14 with fp32 ones.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "flash_mla/decode.h"
#include "reference/reference.h"

namespace flash_mla::reference {

struct Bound {
  double model_factor = 1.5;
  double slack = 0x1p-10;
  double lse_absolute = 1e-5;
  double lse_relative = 3e-5;
  bool check_lse = true;
};

[[nodiscard]] Bound bound_of(const DecodeArgs& args);

struct RowVerdict {
  bool ok = true;
  double used = 0;      // the larger of |error| / bound of out and of lse; infinite when masks differ
  std::string message;  // the figures, right or wrong
};

[[nodiscard]] RowVerdict judge_row(const ReferenceRow& want, const Row& got, const Bound& bound);

struct Comparison {
  bool ok = true;
  std::int64_t rows = 0;        // compared
  std::int64_t wrong_rows = 0;  // of those
  double used = 0;              // the worst row's share of its bound
  RowId worst;
  std::string message;  // the worst row in a sentence, wrong or not
};

// Compares args.out and args.lse in the given rows, or in max_rows rows drawn with `seed`. The second form has what is
// wanted of each row already.
[[nodiscard]] Comparison compare_rows(const DecodeArgs& args, bool causal, std::span<const RowId> rows);
[[nodiscard]] Comparison compare_rows(const DecodeArgs& args, bool causal, std::span<const RowId> rows,
                                      std::span<const ReferenceRow> want);
[[nodiscard]] Comparison compare(const DecodeArgs& args, bool causal, std::int64_t max_rows = INT64_MAX,
                                 std::uint64_t seed = 1);

// The rows that compare() would take, in the order of requests and kv heads.
[[nodiscard]] std::vector<RowId> sample_rows(const DecodeArgs& args, bool causal, std::int64_t max_rows,
                                             std::uint64_t seed);

// Elements of a float tensor that are NaN. Results are pre-filled with NaN, so this finds those never written.
[[nodiscard]] std::int64_t count_nan(const TensorView& view);
// Says how many elements of out or of lse are NaN; empty when there are none.
[[nodiscard]] std::string nan_in_results(const DecodeArgs& args);

}  // namespace flash_mla::reference
