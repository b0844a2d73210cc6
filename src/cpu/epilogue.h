// Steps 7 and 8 of docs/algorithm.md: what a tile, or the merge of a unit's splits, writes.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cpu/softmax.h"
#include "schedule/layout.h"
#include "schedule/tile_cursor.h"
#include "schedule/work.h"

namespace flash_mla::cpu {

// Partials in the caller's scratch.
struct Partials {
  float* out = nullptr;  // [slot, rows_per_unit, 512]
  float* lse = nullptr;  // [slot, rows_per_unit]; natural logarithm, -inf for an empty one
  std::int32_t rows_per_unit = 0;

  [[nodiscard]] float* out_row(std::int64_t slot, std::int64_t row) const {
    return out + (slot * rows_per_unit + row) * kLatentDim;
  }
  [[nodiscard]] float& lse_row(std::int64_t slot, std::int64_t row) const { return lse[slot * rows_per_unit + row]; }
};

// Normalises the tile's rows and writes them to out and lse, or to the tile's slot. `accumulated` [rows, 512].
void write_tile(const DecodeProblem& problem, const Work& work, const Tile& tile, const RowState& state,
                const float* accumulated, const Partials& partials);

// Rows of a tile that sees nothing.
void write_empty_tile(const DecodeProblem& problem, const Work& work, const Tile& tile, const Partials& partials);

// Query tokens past the last request's: out = 0, lse = +inf (ragged batches that were padded).
void write_padding_tokens(const DecodeProblem& problem);

// Merges the splits of the tile's unit, rows [first, last) of the tile, in split order.
void merge_splits(const DecodeProblem& problem, const Work& work, const Tile& tile, std::int32_t first,
                  std::int32_t last, const Partials& partials);

}  // namespace flash_mla::cpu
