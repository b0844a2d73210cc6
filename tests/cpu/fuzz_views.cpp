#include "cpu/fuzz_views.h"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>

namespace flash_mla::test {
namespace {

constexpr std::int64_t kMaxProvided_elements = 1 << 25;

std::int64_t number_from_environment(const char* name, std::int64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoll(text) : otherwise;
}

int any_axis(const TensorView& view, Random& random) {
  return static_cast<int>(random.below(std::clamp(view.rank, 1, TensorView::kMaxRank)));
}

void drop(TensorView& view, Random&) { view = {}; }

void change_rank(TensorView& view, Random& random) {
  view.rank = static_cast<int>(one_of<8>({-1, 1, 2, 3, 4, 5, 6, INT_MAX}, random));
}

void change_dtype(TensorView& view, Random& random) {
  view.dtype = static_cast<DType>(one_of<7>({0, 1, 2, 3, 4, 5, 255}, random));
}

void change_device(TensorView& view, Random& random) {
  view.device = {static_cast<DeviceType>(one_of<3>({0, 1, 2}, random)),
                 static_cast<int>(one_of<3>({1, -1, INT_MAX}, random))};
}

void nudge_shape(TensorView& view, Random& random) {
  std::int64_t& dim = view.shape[any_axis(view, random)];
  const std::int64_t old = tame(dim);
  dim = one_of<5>({0, old - 1, old + 1, 2 * old, 1}, random);
}

void wild_shape(TensorView& view, Random& random) {
  view.shape[any_axis(view, random)] = one_of<5>({-1, -576, kInt64Min, kInt64Max, std::int64_t{1} << 62}, random);
}

void nudge_stride(TensorView& view, Random& random) {
  std::int64_t& stride = view.strides[any_axis(view, random)];
  const std::int64_t old = tame(stride);
  stride = one_of<6>({0, 1, 2, old - 1, old + 1, 2 * old}, random);
}

void wild_stride(TensorView& view, Random& random) {
  view.strides[any_axis(view, random)] = one_of<5>({-1, -576, kInt64Min, kInt64Max, std::int64_t{1} << 62}, random);
}

void null_data(TensorView& view, Random&) { view.data = nullptr; }

void misalign_data(TensorView& view, Random&) {
  view.data = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(view.data) | 1);
}

constexpr ViewMutation kViewMutations[] = {
    {"drop a tensor", drop},  {"rank", change_rank},
    {"dtype", change_dtype},  {"device", change_device},
    {"shape", nudge_shape},   {"wild shape", wild_shape},
    {"stride", nudge_stride}, {"wild stride", wild_stride},
    {"null data", null_data}, {"misaligned data", misalign_data},
};

}  // namespace

std::int64_t fuzz_iterations() { return number_from_environment("FLASH_MLA_FUZZ_ITERATIONS", 100000); }
std::uint64_t fuzz_seed() { return static_cast<std::uint64_t>(number_from_environment("FLASH_MLA_FUZZ_SEED", 1)); }

std::int64_t tame(std::int64_t value) { return value > INT_MIN && value < INT_MAX ? value : 0; }

std::span<const ViewMutation> view_mutations() { return kViewMutations; }

bool reach_bytes(const TensorView& view, std::int64_t* bytes) {
  *bytes = 0;
  if (view.rank < 1 || view.rank > TensorView::kMaxRank) return false;
  std::int64_t last = 0, step = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    if (view.shape[axis] < 0 || (view.shape[axis] > 1 && view.strides[axis] < 0)) return false;
  }
  for (int axis = 0; axis < view.rank; ++axis) {
    if (view.shape[axis] == 0) return true;
    if (view.shape[axis] == 1) continue;
    if (__builtin_mul_overflow(view.shape[axis] - 1, view.strides[axis], &step)) return false;
    if (__builtin_add_overflow(last, step, &last)) return false;
  }
  if (last >= kMaxProvided_elements) return false;
  *bytes = (last + 1) * size_in_bytes(view.dtype);
  return true;
}

const Buffer* MemoryProvider::provide(TensorView* view, std::byte fill) {
  std::int64_t bytes = 0;
  const auto misalignment = reinterpret_cast<std::uintptr_t>(view->data) % 16;
  if (!view->data || misalignment % 2 != 0 || !reach_bytes(*view, &bytes)) return nullptr;
  const auto* begin = static_cast<const std::byte*>(view->data);
  for (const Region& region : known_) {
    const bool starts_inside = begin >= region.data && begin <= region.data + region.bytes;
    if (starts_inside && bytes <= region.data + region.bytes - begin) return nullptr;
  }
  Buffer& buffer = provided_.emplace_back("provided", bytes + static_cast<std::int64_t>(misalignment));
  std::memset(buffer.data(), static_cast<int>(fill), static_cast<std::size_t>(buffer.bytes()));
  view->data = buffer.data() + misalignment;
  return &buffer;
}

}  // namespace flash_mla::test
