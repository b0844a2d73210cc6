#include "cpu/worker.h"

#include <algorithm>

#include "core/mask.h"
#include "core/online_softmax.h"
#include "cpu/load.h"
#include "cpu/problem_access.h"
#include "cpu/rows.h"
#include "cpu/softmax.h"

namespace flash_mla::cpu {

Worker::Worker(const DecodeProblem& problem, const Work& work, const WorkspaceLayout& layout, void* memory,
               const Partials& partials)
    : problem_(problem),
      work_(work),
      type_(layout.type),
      workspace_(layout.at(memory)),
      partials_(partials),
      stream_(cpu_engine()),
      in_cache_(blocks_lie_in_cache(problem.cache, layout.type)) {}

std::optional<Tile> Worker::run_part(const ScheduleHeader& header, const PartRecord* parts, std::int32_t part) {
  std::optional<Tile> begun;
  TileCursor cursor(work_, header, parts, part);
  for (Tile tile; cursor.next(&tile);) {
    run_tile(tile);
    if (!tile.whole() && tile.first_part == part) begun = tile;
  }
  return begun;
}

void Worker::run_tile(const Tile& tile) {
  if (tile.block_begin >= tile.block_end) return write_empty_tile(problem_, work_, tile, partials_);
  begin_tile(tile);
  for (std::int32_t block = tile.block_begin; block < tile.block_end; block += kMaxChunkBlocks) {
    run_chunk(tile, block, min_of(kMaxChunkBlocks, tile.block_end - block));
  }
  write_tile(problem_, work_, tile, workspace_.state, workspace_.buffers.out, partials_);
}

void Worker::begin_tile(const Tile& tile) {
  rows_ = round_up(static_cast<int>(tile.num_rows), kRowGranule);
  load_queries(problem_, work_, tile, type_, rows_, workspace_.buffers.queries);
  products(min_of(kMaxChunkBlocks, tile.block_end - tile.block_begin)).pack_queries(stream_);
  std::fill_n(workspace_.buffers.out, std::int64_t{rows_} * kLatentDim, 0.0f);
  std::fill_n(workspace_.state.max, rows_, kNegativeInfinity);
  std::fill_n(workspace_.state.sum, rows_, 0.0f);
  for (std::int32_t i = 0; i < rows_; ++i) {  // padded rows see what the last one sees
    const std::int32_t row = tile.first_row + min_of(i, tile.num_rows - 1);
    workspace_.visible[i] = max_of(work_.visible(tile.request, row / work_.heads_per_kv), 0);
  }
}

void Worker::run_chunk(const Tile& tile, std::int32_t first_block, int blocks) {
  const std::int32_t first_token = first_block * kBlockTokens, tokens = blocks * kBlockTokens;
  const ProductBuffers& buffers = workspace_.buffers;
  BoundProducts& product = products(blocks);
  if (in_cache_ && product.values_layout() == ValuesLayout::paired_panels) {
    score_in_cache(tile, first_block, blocks);
  } else {
    score_gathered(tile, first_block, blocks);
  }

  for (int i = 0; i < rows_; ++i) {
    workspace_.visible_in_chunk[i] = min_of(max_of(workspace_.visible[i] - first_token, 0), tokens);
  }
  const ScoreChunk chunk{.scores = buffers.scores,
                         .weights = buffers.weights,
                         .visible = workspace_.visible_in_chunk,
                         .rows = rows_,
                         .tokens = tokens,
                         .scale_log2e = problem_.softmax_scale * kLog2e};
  const bool raised = softmax(chunk, type_, workspace_.state);
  if (raised && first_block > tile.block_begin) rescale_out(tile);
  product.values(stream_);
}

// Steps 3 and 4 by way of a copy: any dtype, strides and page size.
void Worker::score_gathered(const Tile& tile, std::int32_t first_block, int blocks) {
  BoundProducts& product = products(blocks);
  const ProductBuffers& buffers = workspace_.buffers;
  const std::int32_t begin = first_block * kBlockTokens, tokens = blocks * kBlockTokens;
  const std::int32_t end = min_of(begin + tokens, work_.length(tile.request));
  TokenTarget target{.tokens = buffers.tokens};
  if (product.values_layout() == ValuesLayout::paired_panels) {
    target.panels = static_cast<std::uint16_t*>(buffers.values);
    target.panel_stride = std::int64_t{tokens} * kPanelColumns;
  }
  load_tokens(problem_, tile, {begin, end, tokens}, type_, target);
  product.scores(stream_);
}

// Steps 3 and 4 without a copy of the keys, block by block; only a last block that is not full is gathered.
void Worker::score_in_cache(const Tile& tile, std::int32_t first_block, int blocks) {
  const ProductBuffers& buffers = workspace_.buffers;
  const std::int32_t length = work_.length(tile.request);
  BoundProducts& one_block = products(1);
  for (int i = 0; i < blocks; ++i) {
    const std::int32_t block = first_block + i, begin = block * kBlockTokens,
                       end = min_of(begin + kBlockTokens, length);
    const bool full = end - begin == kBlockTokens;
    load_tokens(problem_, tile, {begin, end, kBlockTokens}, type_,
                {.tokens = full ? nullptr : buffers.tokens,
                 .panels = static_cast<std::uint16_t*>(buffers.values) + i * kBlockTokens * kPanelColumns,
                 .panel_stride = std::int64_t{blocks} * kBlockTokens * kPanelColumns});
    one_block.scores(stream_, full ? block_in_cache(problem_, tile, block) : buffers.tokens,
                     buffers.scores + std::int64_t{i} * kBlockTokens * rows_);
  }
}

void Worker::rescale_out(const Tile& tile) {
  for (std::int32_t i = 0; i < tile.num_rows; ++i) {
    const float factor = workspace_.state.factor[i];
    if (factor != 1.0f) scale_row(workspace_.buffers.out + std::int64_t{i} * kLatentDim, factor, kLatentDim);
  }
}

BoundProducts& Worker::products(int blocks) {
  if (bound_rows_ != rows_) {
    for (auto& bound : bound_) bound.reset();
    bound_rows_ = rows_;
  }
  std::optional<BoundProducts>& bound = bound_[blocks - 1];
  if (!bound) bound.emplace(tile_products({type_, rows_, blocks}), workspace_.buffers);
  return *bound;
}

}  // namespace flash_mla::cpu
