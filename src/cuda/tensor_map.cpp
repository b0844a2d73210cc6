#include "cuda/tensor_map.h"

#include <cuda_runtime_api.h>

#include "core/error.h"
#include "cuda/runtime.h"

namespace flash_mla::cuda {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// Asked of the driver at run time, so that programs start on machines without one.
struct EncodeEntry {
  EncodeTiled function = nullptr;
  Status status;
};

EncodeEntry find_encode() noexcept {
  EncodeEntry entry;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  entry.status =
      check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
            "cudaGetDriverEntryPointByVersion");
#else
  entry.status = check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found),
                       "cudaGetDriverEntryPoint");
#endif
  if (!entry.status.ok()) return entry;
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    entry.status = make_error(StatusCode::unsupported,
                              "the driver (CUDA %d.%d) has no cuTensorMapEncodeTiled; CUDA 12.0 or later is needed",
                              driver / 1000, driver % 1000 / 10);
    return entry;
  }
  entry.function = reinterpret_cast<EncodeTiled>(function);
  return entry;
}

// The maps that this thread asked for last: a layer's cache and buffers come again step after step, and to compare is
// quicker than to encode (0.09 us a map).
class Memo {
 public:
  bool find(const TensorMapSpec& spec, CUtensorMap* map) const noexcept {
    for (const Entry& entry : entries_) {
      if (entry.spec == spec) {
        *map = entry.map;
        return true;
      }
    }
    return false;
  }
  void add(const TensorMapSpec& spec, const CUtensorMap& map) noexcept {
    entries_[next_] = {spec, map};
    next_ = (next_ + 1) % entries_.size();
  }

 private:
  struct Entry {
    TensorMapSpec spec;  // rank 0: none
    CUtensorMap map;
  };
  std::array<Entry, 8> entries_ = {};
  std::size_t next_ = 0;
};

Status encode(const TensorMapSpec& spec, CUtensorMap* map) noexcept {
  static const EncodeEntry encode = find_encode();
  if (!encode.status.ok()) return encode.status;

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
  const CUresult result = encode.function(
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
  if (memo.find(spec, map)) return {};
  Status status = encode(spec, map);
  if (status.ok()) memo.add(spec, *map);
  return status;
}

}  // namespace flash_mla::cuda
