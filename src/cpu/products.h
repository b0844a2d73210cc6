// The matrix products of a tile, by oneDNN (docs/algorithm.md, steps 4 and 6), on a chunk of `tokens` cached tokens:
//
//   scores   S^T[t][i] = <k[t], q[i]>            [tokens, 576] x [576, rows]
//   values   O[i]     += sum_t P^T[t][i] * v[t]  [rows, tokens] x [tokens, 512]
//
// Scores come transposed: the cached tokens, which change with every chunk, are then the operand that oneDNN reads as
// it lies in memory, and the queries, which are packed once per tile, the one that it wants packed. Products are
// created once per shape and shared by all threads; what they work on is bound by each worker. Used by worker.cpp.
#pragma once

#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>

#include "flash_mla/types.h"

namespace flash_mla::cpu {

// What the products multiply; they always accumulate in fp32.
enum class ComputeType : std::uint8_t { f32, bf16 };

// bf16 where oneDNN has instructions for it; fp16 and older machines compute in fp32.
ComputeType compute_type(DType dtype);
constexpr std::int64_t size_in_bytes(ComputeType type) { return type == ComputeType::bf16 ? 2 : 4; }

inline constexpr int kRowGranule = 16;     // rows are padded to a multiple
inline constexpr int kMaxRows = 128;       // of a tile
inline constexpr int kMaxChunkBlocks = 4;  // 64-token blocks that one product takes

struct ProductShape {
  ComputeType type = ComputeType::f32;
  int rows = 0;    // multiple of kRowGranule
  int blocks = 0;  // 1 .. kMaxChunkBlocks
};

// How `values` wants v: as rows of 512 inside the tokens' rows of 576, or with token pairs interleaved in panels of 64
// columns: [512 / 64][tokens / 2][64][2].
enum class ValuesLayout : std::uint8_t { in_tokens, paired_panels };

struct TileProducts {
  dnnl::reorder pack_queries;
  dnnl::matmul scores, values;
  dnnl::memory::desc queries, queries_packed, tokens, scores_out, weights, values_in, out;
  dnnl::memory::desc scores_scratch, values_scratch;
  ValuesLayout values_layout = ValuesLayout::in_tokens;

  [[nodiscard]] std::int64_t packed_queries_bytes() const;
  [[nodiscard]] std::int64_t scratch_bytes() const;
};

// The products of a shape; made on first use, never destroyed. Thread-safe. Throws dnnl::error and std::bad_alloc.
const TileProducts& tile_products(const ProductShape& shape);
const dnnl::engine& cpu_engine();

// Where a worker's operands lie.
struct ProductBuffers {
  void* queries = nullptr;         // [rows, 576]
  void* queries_packed = nullptr;  // opaque
  void* tokens = nullptr;          // [tokens, 576]
  void* values = nullptr;          // v in paired panels, where values_layout says so
  float* scores = nullptr;         // S^T [tokens, rows]
  void* weights = nullptr;         // P^T [tokens, rows]
  float* out = nullptr;            // O [rows, 512]
  void* scratch = nullptr;
};

// One shape's products bound to one worker's buffers.
class BoundProducts {
 public:
  BoundProducts(const TileProducts& products, const ProductBuffers& buffers);

  void pack_queries(dnnl::stream& stream);  // queries -> queries_packed
  void scores(dnnl::stream& stream);        // tokens, queries_packed -> scores
  void scores(dnnl::stream& stream, void* tokens, float* scores);
  void values(dnnl::stream& stream);  // out += weights, values or tokens
  [[nodiscard]] ValuesLayout values_layout() const { return products_->values_layout; }

 private:
  const TileProducts* products_;
  dnnl::memory queries_, queries_packed_, tokens_, scores_, weights_, values_, out_, scores_scratch_, values_scratch_;
};

// While it lives, oneDNN calls of this thread run on this thread alone, and primitives are created for one thread: the
// parts are what runs in parallel, and results must not depend on the number of threads.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_before_;
};

}  // namespace flash_mla::cpu
