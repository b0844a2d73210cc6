// Step 3 of docs/algorithm.md: gathers a tile's queries and a chunk's tokens into contiguous rows of the compute type.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cpu/products.h"
#include "schedule/tile_cursor.h"
#include "schedule/work.h"

namespace flash_mla::cpu {

// q of the tile's rows to `queries` [padded_rows, 576]; rows past tile.num_rows become 0.
void load_queries(const DecodeProblem& problem, const Work& work, const Tile& tile, ComputeType type, int padded_rows,
                  void* queries);

// A run of a request's tokens and where they go.
struct TokenRange {
  std::int32_t begin = 0;  // even
  std::int32_t end = 0;    // of what exists
  std::int32_t room = 0;   // rows to fill: those past `end` become 0; even
};
struct TokenTarget {
  void* tokens = nullptr;           // [range.room, 576]; null: they stay where they are
  std::uint16_t* panels = nullptr;  // v in paired panels; null when not wanted
  std::int64_t panel_stride = 0;
};

// Tokens of one request and kv head. Reads neither tokens at or past range.end nor their entries in the block table.
void load_tokens(const DecodeProblem& problem, const Tile& tile, const TokenRange& range, ComputeType type,
                 const TokenTarget& to);

// Whether whole blocks already lie in the cache as load_tokens would write them; then scores read them there.
[[nodiscard]] bool blocks_lie_in_cache(const CacheView& cache, ComputeType type);
[[nodiscard]] void* block_in_cache(const DecodeProblem& problem, const Tile& tile, std::int32_t block);

}  // namespace flash_mla::cpu
