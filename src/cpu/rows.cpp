#include "cpu/rows.h"

#include <algorithm>

#include "flash_mla/plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rows.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first: it includes this file once per target.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flash_mla::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::CappedTag<float, 16> kF32;

// Calls f with `data` as a pointer to the elements of a dtype.
template <class F>
void with_elements(const void* data, DType type, F f) {
  switch (type) {
    case DType::bf16:
      return f(static_cast<const bf16_t*>(data));
    case DType::f16:
      return f(static_cast<const f16_t*>(data));
    default:
      return f(static_cast<const float*>(data));
  }
}
template <class F>
void with_elements(void* data, DType type, F f) {
  with_elements(static_cast<const void*>(data), type, [&]<class T>(const T* typed) { f(const_cast<T*>(typed)); });
}

template <class T>
void gather_part(const T* from, std::int64_t columns, float* to) {
  for (std::int64_t i = 0; i < columns; i += hn::Lanes(kF32)) hn::StoreU(load_as_f32(kF32, from + i), kF32, to + i);
}
inline void gather_part(const bf16_t* from, std::int64_t columns, bf16_t* to) {
  constexpr hn::CappedTag<std::uint16_t, 32> kU16;
  const auto* source = reinterpret_cast<const std::uint16_t*>(from);
  auto* target = reinterpret_cast<std::uint16_t*>(to);
  for (std::int64_t i = 0; i < columns; i += hn::Lanes(kU16)) hn::StoreU(hn::LoadU(kU16, source + i), kU16, target + i);
}

template <class T, class To>
void gather(const SourceRows& from, const T*, To* to) {
  const T* latent = static_cast<const T*>(from.latent);
  const T* rope = static_cast<const T*>(from.rope);
  for (std::int64_t row = 0; row < from.rows; ++row) {
    gather_part(latent + row * from.latent_stride, kLatentDim, to);
    gather_part(rope + row * from.rope_stride, kRopeDim, to + kLatentDim);
    to += kHeadDim;
  }
}

void gather_rows(const SourceRows& from, DType from_type, ComputeType to_type, void* to) {
  if (to_type == ComputeType::bf16) {
    gather(from, static_cast<const bf16_t*>(from.latent), static_cast<bf16_t*>(to));
  } else {
    with_elements(from.latent, from_type, [&](const auto* typed) { gather(from, typed, static_cast<float*>(to)); });
  }
}

// Interleaves two rows of the latent part and, with kCopy, copies them. The rows that come `ahead` are asked for early.
template <bool kCopy>
void pair_rows(const std::uint16_t* even, const std::uint16_t* odd, std::int64_t ahead, std::uint16_t* to_even,
               std::uint16_t* to_odd, std::uint16_t* panels, std::int64_t panel_stride) {
  constexpr hn::CappedTag<std::uint32_t, 16> kU32;
  constexpr hn::Rebind<std::uint16_t, decltype(kU32)> kU16;
  constexpr int kLineColumns = 32;  // of a cache line
  for (int column = 0; column < kLatentDim; column += kLineColumns) {
    hwy::Prefetch(even + ahead + column);
    hwy::Prefetch(odd + ahead + column);
    std::uint16_t* to = panels + column / kPanelColumns * panel_stride + 2 * (column % kPanelColumns);
    for (std::size_t i = 0; i < kLineColumns; i += hn::Lanes(kU32)) {
      const auto low = hn::LoadU(kU16, even + column + i), high = hn::LoadU(kU16, odd + column + i);
      if constexpr (kCopy) {
        hn::StoreU(low, kU16, to_even + column + i);
        hn::StoreU(high, kU16, to_odd + column + i);
      }
      const auto pair = hn::Or(hn::PromoteTo(kU32, low), hn::ShiftLeft<16>(hn::PromoteTo(kU32, high)));
      hn::StoreU(pair, kU32, reinterpret_cast<std::uint32_t*>(to + 2 * i));
    }
  }
}

template <bool kCopy>
void gather_pairs(const SourceRows& from, std::uint16_t* to, std::uint16_t* panels, std::int64_t panel_stride) {
  static constexpr std::uint16_t kNoRow[kLatentDim] = {};
  std::uint16_t unused[kLatentDim];
  for (std::int64_t row = 0; row < from.rows; row += 2, panels += 2 * kPanelColumns) {
    const bool both = row + 1 < from.rows;
    const auto* even = static_cast<const std::uint16_t*>(from.latent) + row * from.latent_stride;
    const std::uint16_t* odd = both ? even + from.latent_stride : kNoRow;
    const std::int64_t ahead = row + 6 <= from.rows ? 4 * from.latent_stride : 0;
    std::uint16_t* to_even = kCopy ? to + row * kHeadDim : nullptr;
    pair_rows<kCopy>(even, odd, ahead, to_even, kCopy && both ? to_even + kHeadDim : unused, panels, panel_stride);
    if constexpr (!kCopy) continue;
    for (std::int64_t i = row; i < row + 1 + both; ++i) {
      gather_part(static_cast<const bf16_t*>(from.rope) + i * from.rope_stride, kRopeDim,
                  reinterpret_cast<bf16_t*>(to + i * kHeadDim + kLatentDim));
    }
  }
}

void gather_paired_rows(const SourceRows& from, std::uint16_t* to, std::uint16_t* panels, std::int64_t panel_stride) {
  to ? gather_pairs<true>(from, to, panels, panel_stride) : gather_pairs<false>(from, to, panels, panel_stride);
}

void scale_to(const float* from, float factor, void* to, DType to_type, std::int64_t n) {
  const auto scale = hn::Set(kF32, factor);
  with_elements(to, to_type, [&](auto* target) {
    for (std::int64_t i = 0; i < n; i += hn::Lanes(kF32)) {
      store_as(kF32, hn::Mul(hn::LoadU(kF32, from + i), scale), target + i);
    }
  });
}

void scale_row(float* to, float factor, std::int64_t n) { scale_to(to, factor, to, DType::f32, n); }

void add_scaled(const void* from, DType from_type, float factor, float* to, std::int64_t n) {
  const auto scale = hn::Set(kF32, factor);
  with_elements(from, from_type, [&](const auto* source) {
    for (std::int64_t i = 0; i < n; i += hn::Lanes(kF32)) {
      hn::StoreU(hn::MulAdd(load_as_f32(kF32, source + i), scale, hn::LoadU(kF32, to + i)), kF32, to + i);
    }
  });
}

}  // namespace flash_mla::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flash_mla::cpu {

HWY_EXPORT(gather_rows);
HWY_EXPORT(gather_paired_rows);
HWY_EXPORT(scale_to);
HWY_EXPORT(scale_row);
HWY_EXPORT(add_scaled);

void gather_rows(const SourceRows& from, DType from_type, ComputeType to_type, void* to) {
  HWY_DYNAMIC_DISPATCH(gather_rows)(from, from_type, to_type, to);
}
void gather_paired_rows(const SourceRows& from, std::uint16_t* to, std::uint16_t* panels, std::int64_t panel_stride) {
  HWY_DYNAMIC_DISPATCH(gather_paired_rows)(from, to, panels, panel_stride);
}
void clear_pairs(std::uint16_t* panels, std::int64_t panel_stride, std::int64_t first, std::int64_t last) {
  constexpr std::int64_t kPairColumns = 2 * kPanelColumns;
  if (first >= last) return;
  for (int panel = 0; panel < kLatentDim / kPanelColumns; ++panel) {
    std::fill(panels + panel * panel_stride + first * kPairColumns, panels + panel * panel_stride + last * kPairColumns,
              std::uint16_t{0});
  }
}
void scale_to(const float* from, float factor, void* to, DType to_type, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(scale_to)(from, factor, to, to_type, n);
}
void scale_row(float* to, float factor, std::int64_t n) { HWY_DYNAMIC_DISPATCH(scale_row)(to, factor, n); }
void add_scaled(const void* from, DType from_type, float factor, float* to, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(add_scaled)(from, from_type, factor, to, n);
}

}  // namespace flash_mla::cpu
#endif
