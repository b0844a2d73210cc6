#include "cuda/tensor_map.h"

#include "core/error.h"
#include "cuda/driver.h"

namespace flash_mla::cuda {
namespace {

// The maps that this thread asked for last, one of each form: a model's layers differ in their addresses alone, and to
// put in another address is quicker than to encode (0.1 us a map). Calls ask for the same forms in the same order, so
// what followed the last entry before is looked at first.
class Memo {
 public:
  struct Entry {
    TensorMapSpec spec;  // rank 0: there is no map yet
    CUtensorMap map;
    std::size_t follower = 0;
  };

  // The entry of this form, or one without a map.
  Entry& entry_for(const TensorMapSpec& spec) noexcept {
    std::size_t& guess = entries_[last_].follower;
    if (!entries_[guess].spec.has_form_of(spec)) guess = search(spec);
    last_ = guess;
    return entries_[last_];
  }

 private:
  [[gnu::noinline]] std::size_t search(const TensorMapSpec& spec) noexcept {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].spec.has_form_of(spec)) return i;
    }
    newest_ = (newest_ + 1) % entries_.size();  // in place of the oldest
    entries_[newest_].spec.rank = 0;
    return newest_;
  }

  std::array<Entry, 8> entries_ = {};
  std::size_t newest_ = 0, last_ = 0;
};

Status encode(const TensorMapSpec& spec, CUtensorMap* map) noexcept {
  constexpr std::int64_t kElementBytes = 2;
  cuuint64_t sizes[TensorMapSpec::kMaxRank] = {};
  cuuint64_t strides_bytes[TensorMapSpec::kMaxRank] = {};
  cuuint32_t box[TensorMapSpec::kMaxRank] = {};
  cuuint32_t steps[TensorMapSpec::kMaxRank] = {};
  for (int axis = 0; axis < spec.rank; ++axis) {
    sizes[axis] = static_cast<cuuint64_t>(spec.sizes[axis]);
    box[axis] = static_cast<cuuint32_t>(spec.box[axis]);
    steps[axis] = 1;
    if (axis == 0) continue;
    const std::int64_t stride = spec.sizes[axis] == 1 ? spec.sizes[0] : spec.stride_elements[axis];
    strides_bytes[axis - 1] = static_cast<cuuint64_t>(stride * kElementBytes);
  }
  const CUresult result = Driver::get().encode_tensor_map(
      map, spec.dtype == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      static_cast<cuuint32_t>(spec.rank), const_cast<void*>(spec.base), sizes, strides_bytes, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return {};
  return make_error(StatusCode::device_error,
                    "cuTensorMapEncodeTiled refused %s (error %d): base %p, sizes %lld %lld %lld %lld %lld, strides "
                    "%lld %lld %lld %lld bytes",
                    spec.name, static_cast<int>(result), spec.base, static_cast<long long>(sizes[0]),
                    static_cast<long long>(sizes[1]), static_cast<long long>(sizes[2]),
                    static_cast<long long>(sizes[3]), static_cast<long long>(sizes[4]),
                    static_cast<long long>(strides_bytes[0]), static_cast<long long>(strides_bytes[1]),
                    static_cast<long long>(strides_bytes[2]), static_cast<long long>(strides_bytes[3]));
}

}  // namespace

Status encode_tensor_map(const TensorMapSpec& spec, CUtensorMap* map) noexcept {
  static thread_local Memo memo;
  const Driver& driver = Driver::get();
  if (!driver.status.ok()) return driver.status;
  Memo::Entry& entry = memo.entry_for(spec);
  const bool has_map = entry.spec.rank != 0;
  if (!has_map || (entry.spec.base != spec.base &&
                   driver.replace_address(&entry.map, const_cast<void*>(spec.base)) != CUDA_SUCCESS)) {
    entry.spec.rank = 0;
    const Status status = encode(spec, &entry.map);
    if (!status.ok()) return status;
    entry.spec = spec;
  }
  entry.spec.base = spec.base;
  *map = entry.map;
  return {};
}

}  // namespace flash_mla::cuda
