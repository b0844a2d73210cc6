// Random arguments at append_kv, copy_pages and merge: refused with a message and nothing written, or right against a
// naive loop over the same views. See fuzz_arguments_test.cpp for the environment variables.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cpu/fuzz_views.h"
#include "flash_mla/flash_mla.h"
#include "reference/float_format.h"

namespace flash_mla::test {
namespace {

constexpr std::byte kFill{0x3c};  // a moderate number in every float type

struct Counts {
  std::int64_t accepted = 0;
  std::int64_t refused = 0;
};

// Views of one call under their own buffers, most of them with gaps between rows.
class FuzzViews {
 public:
  explicit FuzzViews(Random& random) : random_(random) {}

  TensorView make(DType dtype, std::initializer_list<std::int64_t> shape, bool gaps = true) {
    TensorView view = TensorView::contiguous(nullptr, dtype, shape);
    for (int axis = view.rank - 2; axis >= 0; --axis) {
      view.strides[axis] = view.shape[axis + 1] * view.strides[axis + 1] + (gaps ? random_.below(3) : 0);
    }
    std::int64_t bytes = 0;
    reach_bytes(view, &bytes);
    Buffer& buffer = buffers_.emplace_back("view", bytes);
    fill_numbers(view.dtype, buffer);
    view.data = buffer.data();
    provider_.know(buffer.data(), bytes);
    return view;
  }

  // Breaks up to three of `views`, then provides what they reach.
  std::vector<const char*> break_some(const std::vector<TensorView*>& views) {
    std::vector<const char*> applied;
    const std::int64_t wanted = random_.pick(std::array{0, 0, 0, 1, 1, 1, 1, 1, 2, 3});
    for (std::int64_t i = 0; i < wanted; ++i) {
      const ViewMutation& mutation = random_.pick(view_mutations());
      mutation.apply(*random_.pick(views), random_);
      applied.push_back(mutation.name);
    }
    for (TensorView* view : views) provided_.push_back(provider_.provide(view, kFill));
    std::erase(provided_, nullptr);
    return applied;
  }

  // All memory, to see what a call wrote.
  [[nodiscard]] std::vector<std::byte> bytes() const {
    std::vector<std::byte> all;
    const auto add = [&](const Buffer& b) { all.insert(all.end(), b.data(), b.data() + b.bytes()); };
    for (const Buffer& buffer : buffers_) add(buffer);
    for (const Buffer* buffer : provided_) add(*buffer);
    return all;
  }
  void restore(const std::vector<std::byte>& all) {
    const std::byte* from = all.data();
    const auto take = [&](const Buffer& b) {
      std::copy(from, from + b.bytes(), b.data());
      from += b.bytes();
    };
    for (const Buffer& buffer : buffers_) take(buffer);
    for (const Buffer* buffer : provided_) take(*buffer);
  }

 private:
  // Numbers in [1, 2), distinct enough to tell rows apart; integers as random bits.
  void fill_numbers(DType dtype, Buffer& buffer) {
    const int size = size_in_bytes(dtype);
    if (dtype == DType::i64) return buffer.fill_random(random_.next());
    for (std::int64_t at = 0; at < buffer.bytes(); at += size) {
      reference::store_element(dtype, buffer.data() + at, 1 + static_cast<double>(random_.below(64)) / 64);
    }
  }

  Random& random_;
  std::deque<Buffer> buffers_;
  MemoryProvider provider_;
  std::vector<const Buffer*> provided_;
};

std::byte* at(const TensorView& view, std::initializer_list<std::int64_t> indices) {
  std::int64_t offset = 0;
  int axis = 0;
  for (std::int64_t index : indices) offset += view.shape[axis] > 1 ? index * view.strides[axis] : 0, ++axis;
  return static_cast<std::byte*>(view.data) + offset * size_in_bytes(view.dtype);
}

std::int64_t read_i64(const TensorView& view, std::initializer_list<std::int64_t> indices) {
  std::int64_t value = 0;
  std::memcpy(&value, at(view, indices), sizeof value);
  return value;
}

void write_i64(const TensorView& view, std::initializer_list<std::int64_t> indices, std::int64_t value) {
  std::memcpy(at(view, indices), &value, sizeof value);
}

double read_float(const TensorView& view, std::initializer_list<std::int64_t> indices) {
  return reference::load_element(view.dtype, at(view, indices));
}

// Judges one call. `model` does the same naively, in place.
template <class Model>
bool refused_or_equal(const Status& status, FuzzViews& views, const std::vector<std::byte>& before, Model model) {
  const std::vector<std::byte> after = views.bytes();
  if (!status.ok()) {
    EXPECT_NE(status.message()[0], '\0');
    EXPECT_TRUE(after == before) << "refused and wrote: " << status.message();
    return false;
  }
  views.restore(before);
  model();
  EXPECT_TRUE(after == views.bytes()) << "accepted and wrong";
  return true;
}

class Tally {
 public:
  void count(bool accepted, const std::vector<const char*>& broken) {
    add(all_, accepted);
    EXPECT_TRUE(accepted || !broken.empty()) << "a valid call was refused";
    if (broken.size() == 1) add(alone_[broken[0]], accepted);
  }
  void expect_each_kind(std::int64_t trials) {
    if (trials < 2000) return;
    EXPECT_GT(all_.accepted, trials / 10);
    for (const ViewMutation& mutation : view_mutations()) EXPECT_GT(alone_[mutation.name].refused, 0) << mutation.name;
  }

 private:
  static void add(Counts& counts, bool accepted) { ++(accepted ? counts.accepted : counts.refused); }

  Counts all_;
  std::map<std::string, Counts> alone_;  // of trials with just one mutation
};

constexpr std::array kFloats = {DType::bf16, DType::f16, DType::f32};

TEST(FuzzArguments, AppendRefusesOrIsRight) {
  const OneThread one_thread;
  Random random(fuzz_seed() + 2);
  Tally tally;
  const std::int64_t trials = fuzz_iterations() / 20;
  for (std::int64_t i = 0; i < trials && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    FuzzViews views(random);
    const DType dtype = random.pick(kFloats);
    const bool joint = random.below(2);
    const std::int64_t pages = random.below(3), heads = random.between(1, 2);
    const std::int64_t n = random.below(std::min<std::int64_t>(5, 16 * pages + 1));
    AppendArgs args;
    args.kv_cache = views.make(dtype, {pages, 16, heads, joint ? 576 : 512});
    if (!joint) args.k_rope_cache = views.make(dtype, {pages, 16, heads, 64});
    args.c_kv = views.make(dtype, {n, heads, 512});
    args.k_pe = views.make(dtype, {n, heads, 64});
    args.slot_mapping = views.make(DType::i64, {n}, false);
    const std::int64_t first = n > 0 ? random.below(16 * pages - n + 1) : 0;
    for (std::int64_t t = 0; t < n; ++t) write_i64(args.slot_mapping, {t}, random.below(4) ? first + t : -1 - t);
    bool wild_slot = false;
    if (n > 0 && random.below(8) == 0) {
      write_i64(args.slot_mapping, {0}, one_of<4>({16 * pages, kInt64Max, kInt64Min, 1 << 20}, random));
      wild_slot = read_i64(args.slot_mapping, {0}) > 0;
    }
    std::vector<const char*> broken = views.break_some(
        {&args.kv_cache, joint ? &args.kv_cache : &args.k_rope_cache, &args.c_kv, &args.k_pe, &args.slot_mapping});
    const std::vector<std::byte> before = views.bytes();
    const Status status = append_kv(args);
    // A broken stride makes equal slots, which may get either token; on one thread the last wins.
    const auto model = [&] {
      for (std::int64_t t = 0; t < args.slot_mapping.shape[0]; ++t) {
        const std::int64_t slot = read_i64(args.slot_mapping, {t}), size = size_in_bytes(args.kv_cache.dtype);
        if (slot < 0) continue;
        const std::int64_t page = slot / args.kv_cache.shape[1], row = slot % args.kv_cache.shape[1];
        for (std::int64_t h = 0; h < args.kv_cache.shape[2]; ++h) {
          std::memcpy(at(args.kv_cache, {page, row, h}), at(args.c_kv, {t, h}), 512 * size);
          std::byte* rope = args.k_rope_cache.given() ? at(args.k_rope_cache, {page, row, h})
                                                      : at(args.kv_cache, {page, row, h}) + 512 * size;
          std::memcpy(rope, at(args.k_pe, {t, h}), 64 * size);
        }
      }
    };
    const bool accepted = refused_or_equal(status, views, before, model);
    if (wild_slot) broken.insert(broken.end(), 2, "slot");
    tally.count(accepted, broken);
  }
  tally.expect_each_kind(trials);
}

TEST(FuzzArguments, CopyPagesRefusesOrIsRight) {
  Random random(fuzz_seed() + 3);
  Tally tally;
  const std::int64_t trials = fuzz_iterations() / 20;
  for (std::int64_t i = 0; i < trials && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    FuzzViews views(random);
    const std::int64_t pages = random.between(1, 6), n = random.below(pages / 2 + 1);
    TensorView cache = views.make(random.pick(kFloats), {pages, 16, random.between(1, 2), random.between(1, 65)});
    TensorView pairs = views.make(DType::i64, {n, 2}, false);
    // Distinct destinations first, then sources that are none.
    for (std::int64_t p = 0; p < n; ++p) {
      write_i64(pairs, {p, 0}, random.between(n, pages - 1));
      write_i64(pairs, {p, 1}, p);
    }
    const bool wild_page = n > 0 && random.below(6) == 0;
    if (wild_page) {
      write_i64(pairs, {random.below(n), random.below(2)}, one_of<4>({-1, kInt64Max, kInt64Min, 99}, random));
    }
    std::vector<const char*> broken = views.break_some({&cache, &pairs});
    const std::vector<std::byte> before = views.bytes();
    const Status status = copy_pages(cache, pairs);
    const auto model = [&] {
      for (std::int64_t p = 0; p < pairs.shape[0]; ++p) {
        for (std::int64_t row = 0; row < cache.shape[1]; ++row) {
          for (std::int64_t h = 0; h < cache.shape[2]; ++h) {
            std::memcpy(at(cache, {read_i64(pairs, {p, 1}), row, h}), at(cache, {read_i64(pairs, {p, 0}), row, h}),
                        cache.shape[3] * size_in_bytes(cache.dtype));
          }
        }
      }
    };
    const bool accepted = refused_or_equal(status, views, before, model);
    if (wild_page) broken.insert(broken.end(), 2, "page");
    tally.count(accepted, broken);
  }
  tally.expect_each_kind(trials);
}

// Against the formula in double: lse = ln sum exp(lse_i), out = sum exp(lse_i - lse) * out_i.
void expect_merged(const MergeArgs& args) {
  for (std::int64_t row = 0; row < args.out.shape[0]; ++row) {
    const std::int64_t shards = args.partial_out.shape[0];
    double largest = -INFINITY, sum = 0;
    std::vector<double> lse(static_cast<std::size_t>(shards));
    for (std::int64_t i = 0; i < shards; ++i) {
      const double value = read_float(args.partial_lse, {i, row});
      largest = std::max(largest, lse[i] = std::isinf(value) ? -INFINITY : value);
    }
    for (double value : lse) sum += std::isinf(largest) ? 0 : std::exp(value - largest);
    if (args.lse.given()) {
      const double got = read_float(args.lse, {row}), want = sum > 0 ? largest + std::log(sum) : INFINITY;
      EXPECT_TRUE(got == want || std::abs(got - want) <= 1e-5) << "row " << row << ": " << got << ", not " << want;
    }
    for (std::int64_t c = 0; c < 512; ++c) {
      double want = 0;
      for (std::int64_t i = 0; i < shards && sum > 0; ++i) {
        want += std::exp(lse[i] - largest) / sum * read_float(args.partial_out, {i, row, c});
      }
      ASSERT_NEAR(read_float(args.out, {row, c}), want, 0.01 * std::abs(want) + 1e-6) << "row " << row << ", " << c;
    }
  }
}

TEST(FuzzArguments, MergeRefusesOrIsRight) {
  Random random(fuzz_seed() + 4);
  Tally tally;
  const std::int64_t trials = fuzz_iterations() / 20;
  for (std::int64_t i = 0; i < trials && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    FuzzViews views(random);
    const std::int64_t shards = random.between(1, 3), rows = random.below(4);
    MergeArgs args;
    args.partial_out = views.make(random.pick(kFloats), {shards, rows, 512});
    args.partial_lse = views.make(DType::f32, {shards, rows});
    args.out = views.make(random.pick(kFloats), {rows, 512});
    if (random.below(3)) args.lse = views.make(DType::f32, {rows}, false);
    if (rows > 0 && random.below(3) == 0) {
      const float empty = random.below(2) ? INFINITY : -INFINITY;
      std::memcpy(at(args.partial_lse, {random.below(shards), random.below(rows)}), &empty, sizeof empty);
    }
    std::vector<TensorView*> breakable = {&args.partial_out, &args.partial_lse, &args.out};
    if (args.lse.given()) breakable.push_back(&args.lse);
    const std::vector<const char*> broken = views.break_some(breakable);
    const std::vector<std::byte> before = views.bytes();
    const Status status = merge(args);
    if (status.ok()) {
      expect_merged(args);
    } else {
      EXPECT_NE(status.message()[0], '\0');
      EXPECT_TRUE(views.bytes() == before) << "refused and wrote: " << status.message();
    }
    tally.count(status.ok(), broken);
  }
  tally.expect_each_kind(trials);
}

}  // namespace
}  // namespace flash_mla::test
