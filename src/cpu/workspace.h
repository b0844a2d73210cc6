// A worker's buffers inside the caller's scratch. Workers are as many as there are parts or OpenMP threads, whichever
// is less; each runs one part at a time.
#pragma once

#include <cstdint>

#include "core/int_math.h"
#include "cpu/products.h"
#include "cpu/scratch_layout.h"
#include "cpu/softmax.h"

namespace flash_mla::cpu {

struct Workspace {
  ProductBuffers buffers;
  RowState state;
  std::int32_t* visible = nullptr;           // [rows] tokens that a row sees, of the request
  std::int32_t* visible_in_chunk = nullptr;  // [rows]
};

// Sizes for tiles of at most `rows` rows; the same from plan to decode.
struct WorkspaceLayout {
  ComputeType type = ComputeType::f32;
  int rows = 0;
  std::int64_t packed_queries_bytes = 0;
  std::int64_t scratch_bytes = 0;

  [[nodiscard]] std::int64_t bytes() const {
    std::int64_t offset = 0;
    place(nullptr, &offset);
    return offset;
  }
  [[nodiscard]] Workspace at(void* memory) const {
    std::int64_t offset = 0;
    return place(static_cast<char*>(memory), &offset);
  }

 private:
  Workspace place(char* memory, std::int64_t* offset) const {
    const std::int64_t tokens = kMaxChunkBlocks * kBlockTokens, element = size_in_bytes(type);
    const auto take = [&](std::int64_t bytes) -> void* {
      char* region = memory ? memory + *offset : nullptr;
      *offset += round_up(bytes, kScratchAlignmentBytes);
      return region;
    };
    const auto floats = [&] { return static_cast<float*>(take(rows * std::int64_t{4})); };
    const auto ints = [&] { return static_cast<std::int32_t*>(take(rows * std::int64_t{4})); };
    Workspace work;
    work.buffers.queries = take(rows * kHeadDim * element);
    work.buffers.queries_packed = take(packed_queries_bytes);
    work.buffers.tokens = take(tokens * kHeadDim * element);
    work.buffers.values = take(type == ComputeType::bf16 ? tokens * kLatentDim * element : 0);
    work.buffers.scores = static_cast<float*>(take(tokens * rows * 4));
    work.buffers.weights = take(tokens * rows * element);
    work.buffers.out = static_cast<float*>(take(rows * std::int64_t{kLatentDim} * 4));
    work.buffers.scratch = take(scratch_bytes);
    work.state = {floats(), floats(), floats()};
    work.visible = ints();
    work.visible_in_chunk = ints();
    return work;
  }
};

// The layout for tiles of up to `rows` rows. Creates every product that they may need, so that decode finds them made.
WorkspaceLayout workspace_layout(ComputeType type, int rows);

}  // namespace flash_mla::cpu
