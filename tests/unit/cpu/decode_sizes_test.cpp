// How the CPU backend cuts rows and sizes its scratch.
#include <gtest/gtest.h>
#include <omp.h>

#include "cpu/decode.h"
#include "cpu/workspace.h"

namespace flash_mla::test {
namespace {

TEST(CpuSizes, RowsAreBalancedGranulesWithinOneTile) {
  for (std::int64_t rows = 0; rows <= 2000; ++rows) {
    const std::int64_t unit = cpu::choose_rows_per_unit(rows);
    ASSERT_EQ(unit % cpu::kRowGranule, 0);
    ASSERT_TRUE(unit >= cpu::kRowGranule && unit <= cpu::kMaxRows) << rows;
    const std::int64_t units = (rows + unit - 1) / unit;
    ASSERT_LE(units, (rows + cpu::kMaxRows - 1) / cpu::kMaxRows) << rows;  // no more tiles than needed
    ASSERT_LE(unit * units - rows, cpu::kRowGranule * std::max<std::int64_t>(units, 1)) << rows;
  }
  EXPECT_EQ(cpu::choose_rows_per_unit(130), 80);
}

TEST(CpuSizes, RegionsOfTheWorkspaceAreAlignedAndApart) {
  for (const cpu::ComputeType type : {cpu::ComputeType::f32, cpu::compute_type(DType::bf16)}) {
    const cpu::WorkspaceLayout layout = cpu::workspace_layout(type, 48);
    alignas(128) static char base[1];
    const cpu::Workspace work = layout.at(base);
    const void* regions[] = {work.buffers.queries, work.buffers.queries_packed,
                             work.buffers.tokens,  work.buffers.scores,
                             work.buffers.weights, work.buffers.out,
                             work.state.max,       work.state.sum,
                             work.state.factor,    work.visible,
                             work.visible_in_chunk};
    for (std::size_t i = 0; i < std::size(regions); ++i) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(regions[i]) % 128, 0u) << i;
      for (std::size_t j = 0; j < i; ++j) EXPECT_NE(regions[i], regions[j]) << i << " " << j;
    }
    EXPECT_GE(layout.bytes(), 48 * (kHeadDim + kLatentDim) * 4);
  }
}

// A tile may have any number of rows up to the plan's; each must fit into the plan's workspace.
TEST(CpuSizes, WorkspaceHoldsTilesOfFewerRows) {
  for (const cpu::ComputeType type : {cpu::ComputeType::f32, cpu::compute_type(DType::bf16)}) {
    for (int most = cpu::kRowGranule; most <= cpu::kMaxRows; most += cpu::kRowGranule) {
      const cpu::WorkspaceLayout layout = cpu::workspace_layout(type, most);
      for (int rows = cpu::kRowGranule; rows <= most; rows += cpu::kRowGranule) {
        for (int blocks = 1; blocks <= cpu::kMaxChunkBlocks; ++blocks) {
          const cpu::TileProducts& products = cpu::tile_products({type, rows, blocks});
          ASSERT_LE(products.packed_queries_bytes(), layout.packed_queries_bytes) << rows << " of " << most;
          ASSERT_LE(products.scratch_bytes(), layout.scratch_bytes) << rows << " of " << most;
        }
      }
    }
  }
}

TEST(CpuSizes, ScratchGrowsWithWorkersNotWithParts) {
  const int threads = omp_get_max_threads();
  const std::int64_t few = cpu::scratch_bytes(DType::bf16, threads, 128);
  const std::int64_t many = cpu::scratch_bytes(DType::bf16, threads + 200, 128);
  const std::int64_t partials = std::int64_t{2} * 200 * 128 * (kLatentDim + 1) * 4;
  EXPECT_LT(many - few, partials + 200 * 128);
}

}  // namespace
}  // namespace flash_mla::test
