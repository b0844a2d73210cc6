// The pages that a request's blocks lie in. A block of 64 tokens is one box of the copy engine, or several where pages
// have 16 or 32 tokens; lane i looks up box i. Boxes past the request's last page are asked for at page num_pages,
// which lies outside the tensor and arrives as zeros.
#pragma once

#include "cuda/ptx/prefetch.h"
#include "cuda/sm90/common/params.h"
#include "cuda/sm90/common/tile_ring.h"

namespace flash_mla::sm90 {

__device__ __forceinline__ bool page_is_block(int page_size) { return page_size == kBlockTokens; }

// Where a page is a block, a request's last block is asked for from so many rows before its page: these arrive as zeros
// without being read, and the request's tokens stand at the block's end. Rows past the last token are never read.
__device__ __forceinline__ int rows_before_page(int page_size, int length, int block) {
  if (!page_is_block(page_size)) return 0;
  return max_of(kBlockTokens - max_of(length - block * kBlockTokens, 0), 0);
}

// Where a lane's box lies in the cache, block after block of a request: first look_up(), then by next_block() the page
// of the next block is looked up while the present one is loaded.
class BoxWalk {
 public:
  __device__ BoxWalk(const DecodeParams& params, const TileRecord& tile, int lane)
      : params_(params),
        table_(params.block_table + tile.request * params.block_table_stride),
        length_(tile.length),
        pages_(min_of<std::int64_t>(ceil_div(tile.length, params.page_size), params.block_table_columns)) {
    const int token = static_cast<int>(static_cast<std::uint32_t>(tile.block_begin * kBlockTokens) +
                                       lane * min_of(params.page_size, kBlockTokens));
    index_ = token / params.page_size;
    row_ = token - index_ * params.page_size;
  }

  // A hint: the entry comes to the L2 cache before it may be read.
  __device__ __forceinline__ void prefetch_entry() const {
    if (static_cast<std::uint32_t>(index_) < static_cast<std::uint32_t>(pages_)) ptx::prefetch_l2(table_ + index_);
  }
  // Unsigned: near the greatest length a lane without a box stands past 2^31 tokens.
  __device__ __forceinline__ void look_up() {
    page_ =
        static_cast<std::uint32_t>(index_) < static_cast<std::uint32_t>(pages_) ? table_[index_] : params_.num_pages;
  }

  [[nodiscard]] __device__ __forceinline__ int page() const { return page_; }
  [[nodiscard]] __device__ __forceinline__ int row() const { return row_; }  // within the page
  [[nodiscard]] __device__ __forceinline__ int rows_before(int block) const {
    return rows_before_page(params_.page_size, length_, block);
  }

  __device__ __forceinline__ void next_block() {
    if (params_.page_size >= kBlockTokens) {
      row_ += kBlockTokens;
      if (row_ < params_.page_size) return;
      row_ = 0;
      ++index_;
    } else {
      index_ += kBlockTokens / params_.page_size;
    }
    look_up();
  }

 private:
  const DecodeParams& params_;
  const std::int32_t* table_;
  int length_, pages_;
  int index_, row_;
  int page_ = 0;
};

}  // namespace flash_mla::sm90
