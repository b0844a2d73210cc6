// What looks odd and is legal: empty batches, tables and caches, free strides, entries nobody reads.
#include <gtest/gtest.h>

#include "unit/api/calls.h"

namespace flash_mla::test {
namespace {

TEST(LegalEdges, EmptyBatch) {
  for (Queries queries : {Queries::uniform, Queries::ragged}) {
    DecodeCall call(queries);
    const bool ragged = queries == Queries::ragged;
    std::int32_t zero = 0;
    DecodeArgs& args = call.args;
    const auto rows = [&](std::int64_t d) {
      return ragged ? TensorView::contiguous(nullptr, DType::bf16, {0, 4, d})
                    : TensorView::contiguous(nullptr, DType::bf16, {0, 2, 4, d});
    };
    args.q = rows(576), args.out = rows(512);
    args.lse = ragged ? TensorView::contiguous(nullptr, DType::f32, {4, 0})
                      : TensorView::contiguous(nullptr, DType::f32, {0, 4, 2});
    args.cache_seqlens = TensorView::contiguous(nullptr, DType::i32, {0});
    if (ragged) args.cu_seqlens_q = TensorView::contiguous(&zero, DType::i32, {1});
    args.block_table = TensorView::contiguous(nullptr, DType::i32, {0, 0});
    args.kv_cache = TensorView::contiguous(nullptr, DType::bf16, {0, 64, 2, 576});
    call.schedule_args = {args.cache_seqlens, args.cu_seqlens_q, ragged ? 0 : 2};
    ASSERT_TRUE(call.schedule().ok());
    const Status status = call.decode();
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(call.backend.calls, 0) << "there is nothing to compute";
  }
}

TEST(LegalEdges, AllLengthsZeroWithoutPagesAndColumns) {
  DecodeCall call;
  std::fill_n(call.lengths(), 3, 0);
  ASSERT_TRUE(call.schedule().ok());
  call.args.block_table = TensorView::contiguous(nullptr, DType::i32, {3, 0});
  call.args.kv_cache = TensorView::contiguous(nullptr, DType::bf16, {0, 64, 2, 576});
  const Status status = call.decode();
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(call.backend.calls, 1) << "rows that see nothing are written too";
}

TEST(LegalEdges, LseIsOptional) {
  DecodeCall call;
  ASSERT_TRUE(call.schedule().ok());
  call.args.lse = {};
  EXPECT_TRUE(call.decode().ok());
  EXPECT_EQ(call.backend.last_problem.lse.data, nullptr);
}

TEST(LegalEdges, RaggedPaddingBehindTheLastRequest) {
  DecodeCall call(Queries::ragged);
  call.cu()[3] = 2;  // one token of q belongs to nobody
  ASSERT_TRUE(call.schedule().ok());
  EXPECT_TRUE(call.decode().ok());
  EXPECT_EQ(call.backend.last_problem.batch.total_q, 3);
}

TEST(LegalEdges, StridesOfDimensionsOfOneMeanNothing) {
  DecodeCall call;
  call.schedule_args.seqlen_q = 1;
  call.args.q.shape[1] = call.args.out.shape[1] = call.args.lse.shape[2] = 1;
  call.args.q.strides[1] = call.args.out.strides[1] = call.args.lse.strides[2] = -3;
  ASSERT_TRUE(call.schedule().ok());
  const Status status = call.decode();
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(call.backend.last_problem.q_latent.token_stride, 0);
}

// Layers interleaved in one allocation, q and out side by side in one row, one table row for all requests.
TEST(LegalEdges, StridedAndInterleavedViews) {
  DecodeCall call;
  call.lengths()[2] = 64;
  ASSERT_TRUE(call.schedule().ok());
  TensorView layers = call.memory.tensor(DType::bf16, {6, 3, 64, 2, 576}, {});
  call.args.kv_cache.data = static_cast<char*>(layers.data) + layers.strides[1] * 2;
  call.args.kv_cache.strides[0] = layers.strides[0];
  TensorView rows = call.memory.tensor(DType::bf16, {3, 2, 4, 576 + 512}, {});
  call.args.q.data = rows.data;
  call.args.out.data = static_cast<char*>(rows.data) + 1152;
  for (int axis = 0; axis < 4; ++axis) call.args.q.strides[axis] = call.args.out.strides[axis] = rows.strides[axis];
  call.args.block_table.strides[0] = 0;
  const Status status = call.decode();
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(call.backend.last_problem.cache.latent.page_stride, 3 * 64 * 2 * 576);
  EXPECT_EQ(call.backend.last_problem.block_table_stride, 0);
}

// Heads before tokens is as good an order for an output as any.
TEST(LegalEdges, OutputsInAnyOrderOfDimensions) {
  DecodeCall call;
  ASSERT_TRUE(call.schedule().ok());
  call.args.out.strides = {4096, 512, 1024, 1};
  const Status status = call.decode();
  EXPECT_TRUE(status.ok()) << status.message();
}

}  // namespace
}  // namespace flash_mla::test
