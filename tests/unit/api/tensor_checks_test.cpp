// What the checks of tensors see at a glance is what they say in full.
#include "api/tensor_checks.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace flash_mla::test {
namespace {

using Numbers = std::mt19937_64;

template <class T>
T pick(Numbers& random, std::initializer_list<T> values) {
  return values.begin()[random() % values.size()];
}

// Row-major, with gaps or without, and then changed in up to two places.
TensorView random_view(Numbers& random, int rank) {
  TensorView view;
  view.rank = rank;
  view.dtype = pick(random, {DType::bf16, DType::f16, DType::f32, DType::i32, DType::i64});
  view.data = reinterpret_cast<void*>(std::uintptr_t{0x7f0000000000});
  std::int64_t stride = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    view.shape[axis] = pick<std::int64_t>(random, {1, 2, 8, 64, 512});
    view.strides[axis] = stride;
    stride *= view.shape[axis] * pick(random, {1, 1, 1, 3});
  }
  for (std::size_t changes = random() % 3; changes > 0; --changes) {
    const std::size_t axis = random() % static_cast<std::size_t>(rank);
    switch (random() % 4) {
      case 0:
        view.shape[axis] = pick<std::int64_t>(random, {0, 1, 7, std::int64_t{1} << 28, (std::int64_t{1} << 28) + 1,
                                                       std::int64_t{1} << 40, std::int64_t{1} << 62});
        break;
      case 1:
        view.strides[axis] = pick<std::int64_t>(
            random, {-1, 0, 1, 2, 4, 8, 511, std::int64_t{1} << 28, std::int64_t{1} << 50, std::int64_t{1} << 62});
        break;
      case 2:
        view.data = reinterpret_cast<void*>(pick<std::uintptr_t>(
            random, {0, 1, 2, 4, 8, 16, 0x7f0000000002, std::uintptr_t{1} << 62, ~std::uintptr_t{0} << 4}));
        break;
      default:
        std::swap(view.strides[axis], view.strides[random() % static_cast<std::size_t>(rank)]);
    }
  }
  return view;
}

struct Counts {
  int ordinary = 0, unusual = 0, refused = 0;
};

template <int kRank>
void compare(Numbers& random, Counts* counts) {
  const TensorView view = random_view(random, kRank);
  const MemoryRule rule{
      .written = random() % 2 == 0, .last_contiguous = random() % 4 > 0, .tma_aligned = random() % 2 == 0};
  Span span{1, 0};
  const Tensor tensor{"x", view, &span};
  const Status full = check_memory_in_full(tensor, rule);
  const Status quick = check_memory<kRank>(tensor, rule);
  ASSERT_EQ(full.code(), quick.code()) << full.message();
  ASSERT_STREQ(full.message(), quick.message());
  Span ordinary_span;
  const bool ordinary = is_ordinary<kRank>(view, rule, &ordinary_span);
  ++(ordinary ? counts->ordinary : full.ok() ? counts->unusual : counts->refused);
  if (!full.ok()) {
    ASSERT_FALSE(ordinary) << full.message();
    return;
  }
  ASSERT_EQ(span.begin, span_of(view).begin);
  ASSERT_EQ(span.end, span_of(view).end);
}

TEST(TensorChecks, AGlanceSaysWhatTheCheckInFullSays) {
  Numbers random(20250101);
  Counts counts;
  for (int i = 0; i < 100000 && !testing::Test::HasFailure(); ++i) {
    compare<1>(random, &counts);
    compare<2>(random, &counts);
    compare<3>(random, &counts);
    compare<4>(random, &counts);
  }
  EXPECT_GT(counts.ordinary, 40000);
  EXPECT_GT(counts.unusual, 10000);
  EXPECT_GT(counts.refused, 40000);
}

TEST(TensorChecks, AWholeCallIsOrdinary) {
  Span span;
  const auto view = [](std::initializer_list<std::int64_t> shape) {
    return TensorView::contiguous(reinterpret_cast<void*>(std::uintptr_t{0x7f0000000000}), DType::bf16, shape);
  };
  const MemoryRule written{.written = true, .tma_aligned = true};
  EXPECT_TRUE(is_ordinary<4>(view({128, 2, 128, 576}), {.tma_aligned = true}, &span));
  EXPECT_TRUE(is_ordinary<4>(view({100000, 64, 1, 576}), {.tma_aligned = true}, &span));
  EXPECT_TRUE(is_ordinary<4>(view({1, 1, 16, 512}), written, &span));
  EXPECT_TRUE(is_ordinary<3>(view({1, 16, 1}), {.written = true}, &span));
  EXPECT_TRUE(is_ordinary<2>(view({128, 4096}), {}, &span));
}

}  // namespace
}  // namespace flash_mla::test
