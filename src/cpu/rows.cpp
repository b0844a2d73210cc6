#include "cpu/rows.h"

#include "flash_mla/plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rows.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first: it includes this file once per target.
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

void convert_to_f32(const void* from, DType from_type, float* to, std::int64_t n) {
  with_elements(from, from_type, [&](const auto* source) {
    for (std::int64_t i = 0; i < n; i += hn::Lanes(kF32)) hn::StoreU(load_as_f32(kF32, source + i), kF32, to + i);
  });
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

void pair_tokens(const std::uint16_t* tokens, std::int64_t pairs, std::uint16_t* panels, std::int64_t panel_stride) {
  constexpr hn::CappedTag<std::uint32_t, 16> kU32;
  constexpr hn::Rebind<std::uint16_t, decltype(kU32)> kU16;
  constexpr int kPanelColumns = 64;
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const std::uint16_t* even = tokens + 2 * pair * kHeadDim;
    const std::uint16_t* odd = even + kHeadDim;
    for (int panel = 0; panel < kLatentDim / kPanelColumns; ++panel) {
      std::uint16_t* to = panels + panel * panel_stride + pair * 2 * kPanelColumns;
      for (std::size_t column = 0; column < kPanelColumns; column += hn::Lanes(kU32)) {
        const auto low = hn::PromoteTo(kU32, hn::LoadU(kU16, even + panel * kPanelColumns + column));
        const auto high = hn::PromoteTo(kU32, hn::LoadU(kU16, odd + panel * kPanelColumns + column));
        const auto both = hn::Or(low, hn::ShiftLeft<16>(high));
        hn::StoreU(both, kU32, reinterpret_cast<std::uint32_t*>(to + 2 * column));
      }
    }
  }
}

}  // namespace flash_mla::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flash_mla::cpu {

HWY_EXPORT(convert_to_f32);
HWY_EXPORT(scale_to);
HWY_EXPORT(scale_row);
HWY_EXPORT(add_scaled);
HWY_EXPORT(pair_tokens);

void convert_to_f32(const void* from, DType from_type, float* to, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(convert_to_f32)(from, from_type, to, n);
}
void scale_to(const float* from, float factor, void* to, DType to_type, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(scale_to)(from, factor, to, to_type, n);
}
void scale_row(float* to, float factor, std::int64_t n) { HWY_DYNAMIC_DISPATCH(scale_row)(to, factor, n); }
void add_scaled(const void* from, DType from_type, float factor, float* to, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(add_scaled)(from, from_type, factor, to, n);
}
void pair_tokens(const std::uint16_t* tokens, std::int64_t pairs, std::uint16_t* panels, std::int64_t panel_stride) {
  HWY_DYNAMIC_DISPATCH(pair_tokens)(tokens, pairs, panels, panel_stride);
}

}  // namespace flash_mla::cpu
#endif
