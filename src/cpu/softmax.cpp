#include "cpu/softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/softmax.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first: it includes this file once per target.
#include <hwy/highway.h>

#include "cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flash_mla::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Tokens [0, unmasked) are seen by all rows of the group, none by any row from `seen` on.
struct Window {
  int unmasked = 0, seen = 0;
};

inline Window window_of(const std::int32_t* visible, int rows, int tokens) {
  Window window{tokens, 0};
  for (int i = 0; i < rows; ++i) {
    window.unmasked = visible[i] < window.unmasked ? visible[i] : window.unmasked;
    window.seen = visible[i] > window.seen ? visible[i] : window.seen;
  }
  return window;
}

// One vector of rows of a chunk; Weight is float or bf16_t.
template <class Weight>
class RowGroup {
 public:
  static constexpr hn::CappedTag<float, kRowGranule> kF32{};
  using Vector = hn::Vec<decltype(kF32)>;
  using Mask = hn::Mask<decltype(kF32)>;
  static constexpr hn::RebindToSigned<decltype(kF32)> kI32{};

  RowGroup(const ScoreChunk& chunk, int first_row)
      : scores_(chunk.scores + first_row),
        weights_(static_cast<Weight*>(chunk.weights) + first_row),
        rows_(chunk.rows),
        tokens_(chunk.tokens),
        scale_(hn::Set(kF32, chunk.scale_log2e)),
        visible_(hn::LoadU(kI32, chunk.visible + first_row)),
        window_(window_of(chunk.visible + first_row, static_cast<int>(hn::Lanes(kF32)), chunk.tokens)) {}

  // max over the visible tokens of the scaled scores and `start`.
  Vector max(Vector start) const {
    Vector a = start, b = start;
    int t = 0;
    for (; t + 2 <= window_.unmasked; t += 2) {
      a = hn::Max(a, score(t));
      b = hn::Max(b, score(t + 1));
    }
    for (; t < window_.seen; ++t) a = hn::IfThenElse(sees(t), hn::Max(a, score(t)), a);
    return hn::Max(a, b);
  }

  // Writes 2^(scaled score - reference), 0 where masked; the result is its sum.
  Vector write_weights(Vector reference) const {
    Vector sum_a = hn::Zero(kF32), sum_b = sum_a;
    int t = 0;
    for (; t + 2 <= window_.unmasked; t += 2) {
      const Vector p = exp2_of(kF32, hn::Sub(score(t), reference));
      const Vector q = exp2_of(kF32, hn::Sub(score(t + 1), reference));
      sum_a = hn::Add(sum_a, p);
      sum_b = hn::Add(sum_b, q);
      store(p, t);
      store(q, t + 1);
    }
    for (; t < window_.seen; ++t) {
      const Vector p = hn::IfThenElseZero(sees(t), exp2_of(kF32, hn::Sub(score(t), reference)));
      sum_a = hn::Add(sum_a, p);
      store(p, t);
    }
    for (; t < tokens_; ++t) store(hn::Zero(kF32), t);
    return hn::Add(sum_a, sum_b);
  }

 private:
  Vector score(int t) const { return hn::Mul(hn::LoadU(kF32, scores_ + std::int64_t{t} * rows_), scale_); }
  Mask sees(int t) const { return hn::RebindMask(kF32, hn::Gt(visible_, hn::Set(kI32, t))); }
  void store(Vector p, int t) const { store_as(kF32, p, weights_ + std::int64_t{t} * rows_); }

  const float* scores_;
  Weight* weights_;
  int rows_, tokens_;
  Vector scale_;
  hn::Vec<decltype(kI32)> visible_;
  Window window_;
};

template <class Weight>
bool softmax_rows(const ScoreChunk& chunk, const RowState& state) {
  constexpr hn::CappedTag<float, kRowGranule> kF32;
  using Vector = hn::Vec<decltype(kF32)>;
  const Vector one = hn::Set(kF32, 1.0f), none = hn::Set(kF32, kNegativeInfinity);
  bool rescale = false;
  for (int row = 0; row < chunk.rows; row += static_cast<int>(hn::Lanes(kF32))) {
    const RowGroup<Weight> group(chunk, row);
    const Vector old_max = hn::LoadU(kF32, state.max + row);
    const Vector max = group.max(old_max);
    // 0 stands in for the maximum of a row that has seen nothing; a maximum of +inf makes the row NaN.
    const Vector finite = hn::IfThenZeroElse(hn::Eq(max, none), max);
    const Vector reference = hn::Add(finite, hn::Sub(finite, finite));
    const auto raised = hn::Not(hn::Eq(max, old_max));
    const Vector factor = hn::IfThenElse(raised, exp2_of(kF32, hn::Sub(old_max, reference)), one);
    const Vector sum = group.write_weights(reference);
    hn::StoreU(max, kF32, state.max + row);
    hn::StoreU(factor, kF32, state.factor + row);
    hn::StoreU(hn::MulAdd(hn::LoadU(kF32, state.sum + row), factor, sum), kF32, state.sum + row);
    rescale |= !hn::AllFalse(kF32, raised);
  }
  return rescale;
}

bool softmax(const ScoreChunk& chunk, ComputeType type, const RowState& state) {
  return type == ComputeType::bf16 ? softmax_rows<bf16_t>(chunk, state) : softmax_rows<float>(chunk, state);
}

void exp2_values(const float* x, float* result, int n) {
  constexpr hn::CappedTag<float, 1> kOne;
  for (int i = 0; i < n; ++i) hn::StoreU(exp2_of(kOne, hn::LoadU(kOne, x + i)), kOne, result + i);
}

}  // namespace flash_mla::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flash_mla::cpu {

HWY_EXPORT(softmax);
HWY_EXPORT(exp2_values);

bool softmax(const ScoreChunk& chunk, ComputeType type, const RowState& state) {
  return HWY_DYNAMIC_DISPATCH(softmax)(chunk, type, state);
}

void exp2_values(const float* x, float* result, int n) { HWY_DYNAMIC_DISPATCH(exp2_values)(x, result, n); }

}  // namespace flash_mla::cpu
#endif
