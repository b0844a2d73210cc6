// One thread's share of a decode: runs parts, each the loop "for tile in TileCursor: load, scores, softmax, values,
// epilogue" of docs/algorithm.md. Used by decode.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>

#include "core/problem.h"
#include "cpu/epilogue.h"
#include "cpu/products.h"
#include "cpu/workspace.h"
#include "schedule/records.h"
#include "schedule/tile_cursor.h"
#include "schedule/work.h"

namespace flash_mla::cpu {

class Worker {
 public:
  // `memory` holds layout.bytes() bytes.
  Worker(const DecodeProblem& problem, const Work& work, const WorkspaceLayout& layout, void* memory,
         const Partials& partials);

  // Runs all tiles of a part. The result is the unit that the part left unfinished, if it is the first to work on it:
  // the one whose splits are merged under this part's number.
  std::optional<Tile> run_part(const ScheduleHeader& header, const PartRecord* parts, std::int32_t part);

 private:
  void run_tile(const Tile& tile);
  void begin_tile(const Tile& tile);
  void run_chunk(const Tile& tile, std::int32_t first_block, int blocks);
  void score_gathered(const Tile& tile, std::int32_t first_block, int blocks);
  void score_in_cache(const Tile& tile, std::int32_t first_block, int blocks);
  void rescale_out(const Tile& tile);
  BoundProducts& products(int blocks);

  const DecodeProblem& problem_;
  const Work& work_;
  ComputeType type_;
  Workspace workspace_;
  Partials partials_;
  dnnl::stream stream_;
  bool in_cache_;  // whole blocks are scored where they lie
  int rows_ = 0;   // of the current tile, padded
  int bound_rows_ = 0;
  std::array<std::optional<BoundProducts>, kMaxChunkBlocks> bound_;
};

}  // namespace flash_mla::cpu
