// See problem.h.
#include "reference/problem.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <numbers>
#include <numeric>
#include <utility>

#include "reference/float_format.h"

namespace flash_mla::reference {
namespace {

constexpr int kUnwritten = 0xff;  // as bytes: a NaN in every float type

std::int64_t pages_of(std::int32_t length, std::int32_t page_size) {
  return (static_cast<std::int64_t>(length) + page_size - 1) / page_size;
}

// Elements of one type to draw from, encoded.
class Palette {
 public:
  Palette(DType dtype, const std::vector<double>& values) : element_bytes_(size_in_bytes(dtype)) {
    bytes_.resize(values.size() * element_bytes_);
    for (std::size_t i = 0; i < values.size(); ++i) store_element(dtype, &bytes_[i * element_bytes_], values[i]);
  }

  static Palette normal(DType dtype, double deviation) {
    std::vector<double> values(kSize);
    Random random(20240507);
    const auto uniform = [&] { return (static_cast<double>(random.below(1 << 30)) + 0.5) / (1 << 30); };
    for (double& value : values) {
      const double radius = std::sqrt(-2 * std::log(uniform()));
      value = deviation * radius * std::cos(2 * std::numbers::pi * uniform());
    }
    return {dtype, values};
  }

  static Palette poison(DType dtype, Poison kind) {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    constexpr double kInf = std::numeric_limits<double>::infinity();
    switch (kind) {
      case Poison::nan:
        return {dtype, {kNan, -kNan}};
      case Poison::inf:
        return {dtype, {kInf, -kInf}};
      case Poison::mixed:
        return {dtype, {kNan, -kNan, kInf, -kInf}};
      case Poison::zero:
        break;
    }
    return {dtype, {0.0, -0.0}};
  }

  // Sizes are powers of two: an index takes some bits of one draw.
  void fill(std::byte* to, std::int64_t count, Random& random) const {
    const std::uint64_t mask = bytes_.size() / element_bytes_ - 1;
    for (std::int64_t i = 0; i < count;) {
      std::uint64_t bits = random.next();
      for (int draw = 0; draw < 5 && i < count; ++draw, ++i, bits >>= 12) {
        std::memcpy(to + i * element_bytes_, &bytes_[(bits & mask) * element_bytes_], element_bytes_);
      }
    }
  }

 private:
  static constexpr std::size_t kSize = 4096;
  std::size_t element_bytes_;
  std::vector<std::byte> bytes_;
};

std::byte* first_byte(const TensorView& view) { return static_cast<std::byte*>(view.data); }

// Elements from the view's first to its last, gaps included.
std::int64_t extent(const TensorView& view) {
  std::int64_t last = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    if (view.shape[axis] == 0) return 0;
    last += (view.shape[axis] - 1) * view.strides[axis];
  }
  return last + 1;
}

// Calls visit(element offset) for the first element of each row, a row being all of the last dimension.
template <class Visit>
void for_each_row(const TensorView& view, Visit visit) {
  const int outer = view.rank - 1;
  std::int64_t rows = 1;
  for (int axis = 0; axis < outer; ++axis) rows *= view.shape[axis];
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t rest = row, offset = 0;
    for (int axis = outer - 1; axis >= 0; --axis) {
      offset += rest % view.shape[axis] * view.strides[axis];
      rest /= view.shape[axis];
    }
    visit(offset);
  }
}

}  // namespace

Problem::Problem(const ProblemSpec& spec, Contents contents) : spec_(spec) {
  if (spec_.softmax_scale == 0) spec_.softmax_scale = static_cast<float>(1 / std::sqrt(192.0));
  Random random(spec_.seed);

  args_.block_table = add_block_table(random);
  args_.cache_seqlens = add_integers("cache_seqlens", spec_.lengths, {batch()});
  if (spec_.ragged) {
    std::vector<std::int32_t> cumulative(spec_.queries.size() + 1, 0);
    std::partial_sum(spec_.queries.begin(), spec_.queries.end(), cumulative.begin() + 1);
    args_.cu_seqlens_q = add_integers("cu_seqlens_q", cumulative, {batch() + 1});
  }
  args_.q = add_rows("q", spec_.joint_q ? kHeadDim : kLatentDim);
  if (!spec_.joint_q) args_.q_rope = add_rows("q_rope", kRopeDim);
  args_.kv_cache = add_cache("kv_cache", spec_.joint_cache ? kHeadDim : kLatentDim);
  if (!spec_.joint_cache) args_.k_rope_cache = add_cache("k_rope_cache", kRopeDim);
  args_.softmax_scale = spec_.softmax_scale;
  num_inputs_ = buffers_.size();
  args_.out = add_rows("out", kLatentDim);
  if (spec_.want_lse) args_.lse = add_lse();
  if (contents == Contents::layout) return;

  for (const TensorView& view : {args_.q, args_.q_rope}) fill_queries(view, random);
  for (const TensorView& view : {args_.kv_cache, args_.k_rope_cache}) fill_cache(view, random);
  accept_inputs();
  clear_results();
}

std::int64_t Problem::total_q() const {
  if (!spec_.ragged) return std::int64_t{batch()} * spec_.seqlen_q;
  return std::accumulate(spec_.queries.begin(), spec_.queries.end(), std::int64_t{spec_.padding_queries});
}

PlanConfig Problem::plan_config() const {
  PlanConfig config;
  config.dtype = spec_.dtype;
  config.max_batch = batch();
  config.max_seqlen_q = spec_.seqlen_q;
  if (spec_.ragged) {
    config.max_total_q = total_q();
    config.max_seqlen_q = 1;
    for (std::int32_t queries : spec_.queries) config.max_seqlen_q = std::max(config.max_seqlen_q, queries);
  }
  config.num_heads_q = spec_.num_heads_q;
  config.num_heads_kv = spec_.num_heads_kv;
  config.page_size = spec_.page_size;
  config.causal = spec_.causal;
  config.num_parts = spec_.num_parts;
  return config;
}

ScheduleArgs Problem::schedule_args() const {
  ScheduleArgs args;
  args.cache_seqlens = args_.cache_seqlens;
  args.cu_seqlens_q = args_.cu_seqlens_q;
  args.seqlen_q = spec_.ragged ? 0 : spec_.seqlen_q;
  return args;
}

std::byte* Problem::add_buffer(const char* name, std::int64_t bytes) {
  buffers_.emplace_back(name, bytes);
  return buffers_.back().data();
}

TensorView Problem::add_integers(const char* name, const std::vector<std::int32_t>& values,
                                 std::initializer_list<std::int64_t> dims) {
  const std::size_t bytes = values.size() * sizeof(std::int32_t);
  std::byte* data = add_buffer(name, static_cast<std::int64_t>(bytes));
  if (bytes != 0) std::memcpy(data, values.data(), bytes);
  return TensorView::contiguous(data, DType::i32, dims);
}

TensorView Problem::add_rows(const char* name, std::int64_t columns) {
  TensorView view = spec_.ragged ? TensorView::contiguous(nullptr, spec_.dtype, {total_q(), spec_.num_heads_q, columns})
                                 : TensorView::contiguous(nullptr, spec_.dtype,
                                                          {batch(), spec_.seqlen_q, spec_.num_heads_q, columns});
  for (int axis = view.rank - 2; axis >= 0; --axis) {
    view.strides[axis] = view.shape[axis + 1] * view.strides[axis + 1] + spec_.row_gap;
  }
  const int element_bytes = size_in_bytes(spec_.dtype);
  view.data =
      add_buffer(name, (spec_.offset_elements + extent(view)) * element_bytes) + spec_.offset_elements * element_bytes;
  return view;
}

TensorView Problem::add_lse() {
  TensorView view = spec_.ragged
                        ? TensorView::contiguous(nullptr, DType::f32, {spec_.num_heads_q, total_q()})
                        : TensorView::contiguous(nullptr, DType::f32, {batch(), spec_.num_heads_q, spec_.seqlen_q});
  for (int axis = view.rank - 2; axis >= 0; --axis) {
    view.strides[axis] = view.shape[axis + 1] * view.strides[axis + 1] + spec_.row_gap;
  }
  view.data = add_buffer("lse", extent(view) * size_in_bytes(DType::f32));
  return view;
}

TensorView Problem::add_cache(const char* name, std::int64_t columns) {
  const std::int64_t page = spec_.page_size, heads = spec_.num_heads_kv;
  TensorView view = TensorView::contiguous(nullptr, spec_.dtype, {num_pages_, page, heads, columns});
  const std::int64_t page_elements = page * heads * columns;
  view.strides[0] = spec_.layers * page_elements;
  if (spec_.heads_first) view.strides[1] = columns, view.strides[2] = page * columns;
  const std::int64_t before = spec_.offset_elements + (spec_.layers - 1) * page_elements;
  const int element_bytes = size_in_bytes(spec_.dtype);
  view.data = add_buffer(name, (before + extent(view)) * element_bytes) + before * element_bytes;
  return view;
}

TensorView Problem::add_block_table(Random& random) {
  std::int64_t columns = 0, used = 0;
  for (std::int32_t length : spec_.lengths) {
    columns = std::max(columns, pages_of(length, spec_.page_size));
    used += pages_of(length, spec_.page_size);
  }
  if (!spec_.exact_table) columns += 3;
  num_pages_ = static_cast<std::int32_t>(used) + spec_.spare_pages;

  std::vector<std::int32_t> pages(static_cast<std::size_t>(num_pages_));
  std::iota(pages.begin(), pages.end(), 0);
  for (std::size_t i = pages.size(); i > 1; --i) {
    std::swap(pages[i - 1], pages[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
  }

  std::vector<std::int32_t> table;
  table.reserve(spec_.lengths.size() * static_cast<std::size_t>(columns));
  auto next_page = pages.begin();
  for (std::int32_t length : spec_.lengths) {
    for (std::int64_t column = 0; column < columns; ++column) {
      const bool live = column < pages_of(length, spec_.page_size);
      table.push_back(live ? *next_page++ : random.pick(std::initializer_list{-1, INT_MAX, num_pages_ + 1}));
    }
  }
  return add_integers("block_table", table, {batch(), columns});
}

void Problem::poison(const TensorView& view, Random& random) const {
  const Buffer& buffer = buffer_of(view);
  Palette::poison(view.dtype, spec_.poison).fill(buffer.data(), buffer.bytes() / size_in_bytes(view.dtype), random);
}

void Problem::fill_queries(const TensorView& view, Random& random) const {
  if (!view.given()) return;
  poison(view, random);
  const Palette normal = Palette::normal(view.dtype, spec_.q_scale);
  for_each_row(view, [&](std::int64_t offset) {
    normal.fill(first_byte(view) + offset * size_in_bytes(view.dtype), view.shape[view.rank - 1], random);
  });
}

void Problem::fill_cache(const TensorView& view, Random& random) const {
  if (!view.given()) return;
  poison(view, random);
  const Palette normal = Palette::normal(view.dtype, 1);
  const auto* table = static_cast<const std::int32_t*>(args_.block_table.data);
  for (std::int32_t request = 0; request < batch(); ++request) {
    for (std::int32_t t = 0; t < spec_.lengths[static_cast<std::size_t>(request)]; ++t) {
      const std::int64_t page = table[request * args_.block_table.strides[0] + t / spec_.page_size];
      for (std::int32_t head = 0; head < spec_.num_heads_kv; ++head) {
        const std::int64_t offset =
            page * view.strides[0] + t % spec_.page_size * view.strides[1] + head * view.strides[2];
        normal.fill(first_byte(view) + offset * size_in_bytes(view.dtype), view.shape[3], random);
      }
    }
  }
}

void Problem::clear_results() {
  for (std::size_t i = num_inputs_; i < buffers_.size(); ++i) {
    std::memset(buffers_[i].data(), kUnwritten, static_cast<std::size_t>(buffers_[i].bytes()));
  }
}

std::string Problem::damage() const {
  const std::vector<std::uint64_t> hashes = hash_inputs();
  for (std::size_t i = 0; i < num_inputs_; ++i) {
    if (hashes[i] != input_hashes_[i]) return buffers_[i].name() + " was changed";
  }
  for (const TensorView& view : {args_.out, args_.lse}) {
    if (view.given() && !gaps_intact(view)) return buffer_of(view).name() + ": memory between its rows was changed";
  }
  return {};
}

bool Problem::gaps_intact(const TensorView& result) const {
  const Buffer& buffer = buffer_of(result);
  std::vector<bool> in_row(static_cast<std::size_t>(buffer.bytes()), false);
  const std::int64_t before = first_byte(result) - buffer.data();
  const std::int64_t row_bytes = result.shape[result.rank - 1] * size_in_bytes(result.dtype);
  for_each_row(result, [&](std::int64_t offset) {
    const auto begin = in_row.begin() + before + offset * size_in_bytes(result.dtype);
    std::fill(begin, begin + row_bytes, true);
  });
  for (std::int64_t at = 0; at < buffer.bytes(); ++at) {
    if (!in_row[static_cast<std::size_t>(at)] && buffer.data()[at] != std::byte{kUnwritten}) return false;
  }
  return true;
}

std::vector<std::uint64_t> Problem::hash_inputs() const {
  std::vector<std::uint64_t> hashes;
  for (std::size_t i = 0; i < num_inputs_; ++i) hashes.push_back(buffers_[i].hash());
  return hashes;
}

const Buffer& Problem::buffer_of(const TensorView& view) const {
  // Where one buffer ends another may begin, so an end counts only when nothing begins there.
  const std::byte* first = first_byte(view);
  auto found = std::find_if(buffers_.begin(), buffers_.end(), [&](const Buffer& buffer) {
    return first == buffer.data() || (first > buffer.data() && first < buffer.data() + buffer.bytes());
  });
  if (found == buffers_.end()) {
    found = std::find_if(buffers_.begin(), buffers_.end(),
                         [&](const Buffer& buffer) { return first == buffer.data() + buffer.bytes(); });
  }
  return *found;
}

TensorView Problem::relocate(TensorView view, std::span<void* const> bases, Device device) const {
  if (!view.given()) return view;
  const Buffer& buffer = buffer_of(view);
  view.data = static_cast<std::byte*>(bases[static_cast<std::size_t>(&buffer - buffers_.data())]) +
              (first_byte(view) - buffer.data());
  view.device = device;
  return view;
}

DecodeArgs Problem::relocate(const DecodeArgs& args, std::span<void* const> bases, Device device) const {
  DecodeArgs moved = args;
  for (TensorView* view : {&moved.q, &moved.q_rope, &moved.kv_cache, &moved.k_rope_cache, &moved.block_table,
                           &moved.cache_seqlens, &moved.cu_seqlens_q, &moved.out, &moved.lse}) {
    *view = relocate(*view, bases, device);
  }
  return moved;
}

ScheduleArgs Problem::relocate(const ScheduleArgs& args, std::span<void* const> bases, Device device) const {
  ScheduleArgs moved = args;
  for (TensorView* view : {&moved.cache_seqlens, &moved.cu_seqlens_q}) *view = relocate(*view, bases, device);
  return moved;
}

}  // namespace flash_mla::reference
