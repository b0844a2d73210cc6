// See measure.h.
#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "flash_mla/flash_mla.h"
#include "support/errors.h"
#include "support/human.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {

constexpr std::int64_t kMinCalls = 3, kMaxCalls = 2000, kMaxCopies = 512;

std::int64_t pages_of(const BenchRow& row) {
  std::int64_t pages = 0;
  for (std::int32_t length : row.seqlens) pages += (length + row.page_size - 1) / row.page_size;
  return pages;
}

std::vector<std::int32_t> shuffled(std::int64_t n, Random& random) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  for (std::int64_t i = n - 1; i > 0; --i) std::swap(ids[static_cast<std::size_t>(i)], ids[random.below(i + 1)]);
  return ids;
}

// The tensors of one row: `copies` caches whose pages lie shuffled in one pool, a block table for each.
class Workload {
 public:
  Workload(DeviceContext& device, const BenchRow& row, const RandomRows& rows, std::int64_t copies, std::uint64_t seed)
      : device_(device),
        row_(row),
        dtype_(rows.dtype()),
        plan_(make_plan()),
        cache_(device),
        q_(device),
        out_(device, row.b * row.s_q * row.h * kLatentDim * size_in_bytes(dtype_)),
        lse_(device, row.b * row.s_q * row.h * size_in_bytes(DType::f32)),
        lengths_(device),
        schedule_(device, plan_.schedule_bytes()),
        scratch_(device, plan_.scratch_bytes()) {
    Random random(seed);
    fill_cache(rows, copies);
    make_tables(copies, random);
    const auto q = random_elements(dtype_, row.b * row.s_q * row.h * kHeadDim, random.next());
    q_.assign(q.data(), static_cast<std::int64_t>(q.size()));
    lengths_.assign(row.seqlens.data(), row.b * size_in_bytes(DType::i32));
    ScheduleArgs args;
    args.cache_seqlens = lengths_view();
    args.seqlen_q = static_cast<std::int32_t>(row.s_q);
    must(schedule(plan_, args, schedule_.memory(), device_.stream()), "schedule");
    device_.synchronize();
  }

  // Enqueues `calls` decodes and waits for them; returns the seconds of one.
  double time(std::int64_t calls) {
    const auto start = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < calls; ++i) {
      must(decode(plan_, decode_args(next_copy_), schedule_.memory(), scratch_.memory(), device_.stream()), "decode");
      next_copy_ = (next_copy_ + 1) % tables_.size();
    }
    device_.synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / static_cast<double>(calls);
  }

 private:
  Plan make_plan() const {
    PlanConfig config;
    config.device = device_.device();
    config.dtype = dtype_;
    config.max_batch = static_cast<std::int32_t>(row_.b);
    config.max_seqlen_q = static_cast<std::int32_t>(row_.s_q);
    config.num_heads_q = static_cast<std::int32_t>(row_.h);
    config.page_size = static_cast<std::int32_t>(row_.page_size);
    config.causal = row_.causal;
    const Result<Plan> made = plan(config);
    accept(made.status());
    return must(made, row_.text());
  }

  void fill_cache(const RandomRows& rows, std::int64_t copies) {
    num_pages_ = std::max<std::int64_t>(1, copies * pages_of(row_));
    const std::int64_t page_bytes = row_.page_size * rows.row_bytes();
    cache_.reserve(num_pages_ * page_bytes);
    std::vector<std::byte> page(static_cast<std::size_t>(page_bytes));
    for (std::int64_t p = 0; p < num_pages_; ++p) {
      for (std::int64_t token = 0; token < row_.page_size; ++token) {
        std::memcpy(page.data() + token * rows.row_bytes(), rows.row(p, token, 0),
                    static_cast<std::size_t>(rows.row_bytes()));
      }
      device_.upload(static_cast<std::byte*>(cache_.data()) + p * page_bytes, page.data(), page_bytes);
    }
  }

  void make_tables(std::int64_t copies, Random& random) {
    for (std::int32_t length : row_.seqlens) {
      table_columns_ = std::max(table_columns_, (length + row_.page_size - 1) / row_.page_size);
    }
    const std::vector<std::int32_t> ids = shuffled(num_pages_, random);
    auto next = ids.begin();
    for (std::int64_t copy = 0; copy < copies; ++copy) {
      std::vector<std::int32_t> table(static_cast<std::size_t>(row_.b * table_columns_), -1);
      for (std::int64_t request = 0; request < row_.b; ++request) {
        const std::int64_t pages =
            (row_.seqlens[static_cast<std::size_t>(request)] + row_.page_size - 1) / row_.page_size;
        std::copy_n(next, pages, table.begin() + request * table_columns_);
        next += pages;
      }
      tables_.emplace_back(device_).assign(table.data(),
                                           static_cast<std::int64_t>(table.size() * sizeof(std::int32_t)));
    }
  }

  [[nodiscard]] TensorView lengths_view() const {
    return TensorView::contiguous(lengths_.data(), DType::i32, {row_.b}, device_.device());
  }

  [[nodiscard]] DecodeArgs decode_args(std::size_t copy) const {
    const Device device = device_.device();
    DecodeArgs args;
    args.q = TensorView::contiguous(q_.data(), dtype_, {row_.b, row_.s_q, row_.h, kHeadDim}, device);
    args.kv_cache = TensorView::contiguous(cache_.data(), dtype_, {num_pages_, row_.page_size, 1, kHeadDim}, device);
    args.block_table = TensorView::contiguous(tables_[copy].data(), DType::i32, {row_.b, table_columns_}, device);
    args.cache_seqlens = lengths_view();
    args.out = TensorView::contiguous(out_.data(), dtype_, {row_.b, row_.s_q, row_.h, kLatentDim}, device);
    args.lse = TensorView::contiguous(lse_.data(), DType::f32, {row_.b, row_.h, row_.s_q}, device);
    args.softmax_scale = 1 / std::sqrt(192.0f);
    return args;
  }

  DeviceContext& device_;
  const BenchRow& row_;
  DType dtype_;
  Plan plan_;
  std::int64_t num_pages_ = 0, table_columns_ = 0;
  Buffer cache_, q_, out_, lse_, lengths_, schedule_, scratch_;
  std::vector<Buffer> tables_;
  std::size_t next_copy_ = 0;
};

}  // namespace

Measurer::Measurer(DeviceContext& device, const MeasureOptions& options)
    : device_(device), options_(options), rows_(options.dtype, options.seed) {}

// One call on four requests of 1024 tokens with the row's heads and queries.
double Measurer::flop_rate(const BenchRow& row) {
  if (rate_rows_ != row.s_q * row.h) {
    BenchRow probe = row;
    probe.b = 4, probe.s_k = 1024;
    probe.seqlens.assign(4, 1024);
    Workload workload(device_, probe, rows_, 1, options_.seed);
    workload.time(1);
    rate_ = probe.flop() / workload.time(1);
    rate_rows_ = row.s_q * row.h;
  }
  return rate_;
}

Measurement Measurer::measure(const BenchRow& row) {
  Measurement result;
  const double one_cache = static_cast<double>(pages_of(row) * row.page_size * rows_.row_bytes());
  if (one_cache > options_.max_memory_bytes) {
    result.skipped = fmt::format("its cache takes {}, over the limit of {} (--max-memory)", human_bytes(one_cache),
                                 human_bytes(options_.max_memory_bytes));
    return result;
  }
  const double expected = row.flop() / flop_rate(row);
  if (expected > options_.max_call_seconds) {
    result.skipped = fmt::format("one call would take about {}, over the limit of {} (--max-seconds)",
                                 human_seconds(expected), human_seconds(options_.max_call_seconds));
    return result;
  }
  const double affordable = std::floor(options_.max_memory_bytes / std::max(one_cache, 1.0));
  const double wanted = std::ceil(options_.cold_bytes / std::max(one_cache, 1.0));
  result.copies = static_cast<std::int64_t>(std::clamp(wanted, 1.0, std::min<double>(affordable, kMaxCopies)));
  result.cache_bytes = one_cache * static_cast<double>(result.copies);
  result.cold = result.cache_bytes >= options_.cold_bytes;

  Workload workload(device_, row, rows_, result.copies, hash(options_.seed, 2));
  const double first = workload.time(1);
  // A GPU's calls are enqueued back to back, so that waiting for it does not count.
  const bool asynchronous = device_.device().type == DeviceType::cuda;
  const std::int64_t together =
      asynchronous ? std::clamp<std::int64_t>(static_cast<std::int64_t>(2e-3 / first), 1, 64) : 1;
  std::vector<double> samples;
  double spent = 0;
  while (static_cast<std::int64_t>(samples.size()) < kMinCalls ||
         (spent < options_.budget_seconds && static_cast<std::int64_t>(samples.size()) < kMaxCalls)) {
    samples.push_back(workload.time(together));
    spent += samples.back() * static_cast<double>(together);
  }
  result.calls = static_cast<std::int64_t>(samples.size()) * together;
  result.seconds = percentile(samples, 0.5);
  result.lowest = percentile(samples, 0), result.highest = percentile(samples, 1);
  return result;
}

}  // namespace flash_mla::tools
