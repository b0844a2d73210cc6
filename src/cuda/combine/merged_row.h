// Where merged rows belong. A warp holds 128 positions of a row as a vector, four neighbouring ones a lane.
#pragma once

#include "core/row_packing.h"
#include "cuda/combine/cut_unit.h"
#include "cuda/combine/merge_params.h"
#include "cuda/combine/warp_merge.h"
#include "cuda/ptx/opaque.h"
#include "cuda/tile/column_order.h"

namespace flash_mla::cuda {

inline constexpr int kVectorColumns = kWarpLanes * 4;
static_assert(kVectorColumns == kScaledColumns);
inline constexpr int kRowVectors = kLatentDim / kVectorColumns;

// Four neighbouring positions of a row.
template <class Element, tile::ColumnOrder Order>
__device__ __forceinline__ void store_positions(Element* row, int position, float4 v) {
  Element* const to = row + tile::column_at<Order>(position);
  if constexpr (Order == tile::ColumnOrder::pairs) {  // two pairs, 8 columns from each other
    store2(to, v.x, v.y);
    store2(to + 8, v.z, v.w);
  } else {
    to[0] = static_cast<Element>(v.x);
    to[tile::kSliceColumns] = static_cast<Element>(v.y);
    to[2 * tile::kSliceColumns] = static_cast<Element>(v.z);
    to[3 * tile::kSliceColumns] = static_cast<Element>(v.w);
  }
}

// Where a row's results go.
template <class Element>
struct RowPlace {
  Element* out = nullptr;
  float* lse = nullptr;  // null: not wanted
};

template <class Element>
__device__ __forceinline__ RowPlace<Element> place_of_row(const MergeParams& params, const CutUnit& unit, int row) {
  const QueryHead at = unpack_row(unit.first_row + row, unit.kv_head, params.work.heads_per_kv);
  const std::int64_t token = params.work.first_query(unit.request) + at.query;
  const auto offset = [&](const RowsView& view) {
    return unit.request * view.batch_stride + token * view.token_stride + at.head * view.head_stride;
  };
  RowPlace<Element> place;
  place.out = ptx::made_here(static_cast<Element*>(params.out.data) + offset(params.out));
  if (params.lse.data != nullptr) place.lse = static_cast<float*>(params.lse.data) + offset(params.lse);
  place.lse = ptx::made_here(place.lse);
  return place;
}

// The result of one item; lane l has positions position + 128 v + 4 l ... of vector v.
template <class Element, tile::ColumnOrder Order, int kVectors>
__device__ __forceinline__ void store_item(const RowPlace<Element>& place, int position, const float4 (&out)[kVectors],
                                           float lse) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) store_positions<Element, Order>(place.out, position + v * kVectorColumns, out[v]);
  if (position == 0 && place.lse != nullptr) *place.lse = lse_for_api(lse);
}

}  // namespace flash_mla::cuda
