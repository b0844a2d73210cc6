// Vector helpers of the CPU backend, compiled once per Highway target: 2^x, conversions between fp32 and 16-bit floats.
// Included only after hwy/foreach_target.h and hwy/highway.h.
#if defined(FLASH_MLA_CPU_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASH_MLA_CPU_VECTOR_INL_H_
#undef FLASH_MLA_CPU_VECTOR_INL_H_
#else
#define FLASH_MLA_CPU_VECTOR_INL_H_
#endif

#include <hwy/highway.h>

#include "core/dtype.h"
#include "core/online_softmax.h"

HWY_BEFORE_NAMESPACE();
namespace flash_mla::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// 2^x for x <= 126: 2^round(x) times the polynomial of Cephes' exp2f on [-1/2, 1/2]; relative error below 2e-7. Below
// -126 the result is 0: no subnormal weights. NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp2_of(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto tiny = hn::Lt(x, hn::Set(d, -126.0f));
  const V whole = hn::Round(hn::IfThenElse(tiny, hn::Set(d, -126.0f), x));
  const V f = hn::Sub(x, whole);
  V p = hn::Set(d, 1.535336188319500e-4f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.339887440266574e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.618437357674640e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550332471162809e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402264791363012e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931472028550421e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127)));
  return hn::IfThenZeroElse(tiny, hn::Mul(p, hn::BitCast(d, exponent)));
}

// Stores fp32 as fp32 or, rounded to nearest even, as bf16 or fp16.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store_as([[maybe_unused]] D d, V v, float* to) {
  hn::StoreU(v, d, to);
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE void store_as([[maybe_unused]] D d, V v, bf16_t* to) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<std::uint16_t, D> d16;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));  // a NaN must not round to infinity
  const auto kept = hn::IfThenElse(hn::RebindMask(du, hn::Eq(v, v)), rounded, quiet);
  hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(kept)), d16, reinterpret_cast<std::uint16_t*>(to));
}

// Highway emulates fp16 without infinities and NaN below F16C, so older targets go through core/dtype.h.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store_as([[maybe_unused]] D d, V v, f16_t* to) {
#if HWY_TARGET <= HWY_AVX2
  const hn::Rebind<hwy::float16_t, D> d16;
  hn::StoreU(hn::DemoteTo(d16, v), d16, reinterpret_cast<hwy::float16_t*>(to));
#else
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  hn::Store(v, d, lanes);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) to[i] = from_float<f16_t>(lanes[i]);
#endif
}

template <class D>
HWY_INLINE hn::Vec<D> load_as_f32([[maybe_unused]] D d, const float* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> load_as_f32([[maybe_unused]] D d, const bf16_t* from) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::PromoteTo(du, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(from)));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}

template <class D>
HWY_INLINE hn::Vec<D> load_as_f32([[maybe_unused]] D d, const f16_t* from) {
#if HWY_TARGET <= HWY_AVX2
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
#else
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = to_float(from[i]);
  return hn::Load(d, lanes);
#endif
}

}  // namespace flash_mla::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
