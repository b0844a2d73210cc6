// See verify.h.
#include "replay/verify.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "reference/compare.h"
#include "support/errors.h"

namespace flash_mla::tools {

Reservoir::Reservoir(std::int64_t size, std::uint64_t seed) : size_(size), random_(seed) {
  if (size_ == 0) next_ = std::numeric_limits<std::int64_t>::max();
}

void Reservoir::advance() {
  if (next_ + 1 < size_) {
    slot_ = ++next_;
    return;
  }
  skip();
  slot_ = random_.below(size_);
}

void Reservoir::skip() {
  weight_ *= std::exp(std::log(random_.uniform()) / static_cast<double>(size_));
  const double gap = std::floor(std::log(random_.uniform()) / std::log1p(-weight_));
  next_ += 1 + static_cast<std::int64_t>(std::min(gap, 1e15));
}

Verifier::Verifier(DeviceContext& device, const AttentionConfig& config, std::int64_t rows)
    : device_(device), config_(config), wanted_(rows), reservoir_(rows, hash(config.seed, 0x766572696679)) {}

void Verifier::collect(const LayerResult& result) {
  const std::int64_t rows = static_cast<std::int64_t>(result.batch.size()) * config_.heads;
  for (; reservoir_.next() < rows_seen_ + rows; reservoir_.advance()) keep(result, reservoir_.next() - rows_seen_);
  rows_seen_ += rows;
}

void Verifier::keep(const LayerResult& result, std::int64_t row) {
  const RunningRequest& request = result.batch[static_cast<std::size_t>(row / config_.heads)];
  const std::int64_t q_bytes = std::int64_t{kHeadDim} * size_in_bytes(config_.dtype);
  const std::int64_t out_bytes = std::int64_t{kLatentDim} * size_in_bytes(config_.dtype);
  const std::byte* q = result.q + row * q_bytes;
  Sample sample{.step = result.step,
                .request = request.index,
                .length = request.length,
                .layer = result.layer,
                .head = static_cast<std::int32_t>(row % config_.heads),
                .q = {q, q + q_bytes},
                .out = std::vector<std::byte>(static_cast<std::size_t>(out_bytes)),
                .lse = 0};
  device_.download(sample.out.data(), static_cast<std::byte*>(result.out.data) + row * out_bytes, out_bytes);
  device_.download(&sample.lse, static_cast<float*>(result.lse.data) + row, sizeof(float));
  const auto slot = static_cast<std::size_t>(reservoir_.slot());
  if (slot >= samples_.size()) {
    samples_.push_back(std::move(sample));
  } else {
    samples_[slot] = std::move(sample);
  }
}

VerifyReport Verifier::check(const RandomRows& rows) const {
  constexpr std::int64_t kPage = 64;
  VerifyReport report;
  report.rows_seen = rows_seen_;
  std::vector<std::byte> keys;
  std::vector<std::int32_t> table;
  for (Sample sample : samples_) {
    const std::int64_t pages = (sample.length + kPage - 1) / kPage;
    keys.resize(static_cast<std::size_t>(pages * kPage * rows.row_bytes()));
    for (std::int64_t token = 0; token < sample.length; ++token) {
      std::memcpy(keys.data() + token * rows.row_bytes(), rows.row(sample.request, token, sample.layer),
                  static_cast<std::size_t>(rows.row_bytes()));
    }
    table.resize(static_cast<std::size_t>(pages));
    std::iota(table.begin(), table.end(), 0);
    auto length = static_cast<std::int32_t>(sample.length);
    DecodeArgs args;
    args.q = TensorView::contiguous(sample.q.data(), config_.dtype, {1, 1, 1, kHeadDim});
    args.kv_cache = TensorView::contiguous(keys.data(), config_.dtype, {pages, kPage, 1, kHeadDim});
    args.block_table = TensorView::contiguous(table.data(), DType::i32, {1, pages});
    args.cache_seqlens = TensorView::contiguous(&length, DType::i32, {1});
    args.out = TensorView::contiguous(sample.out.data(), config_.dtype, {1, 1, 1, kLatentDim});
    args.lse = TensorView::contiguous(&sample.lse, DType::f32, {1, 1, 1});
    args.softmax_scale = Attention::softmax_scale();
    const reference::Comparison comparison = reference::compare(args, /*causal=*/true);
    report.rows += comparison.rows;
    report.wrong += comparison.wrong_rows;
    if (report.worst_text.empty() || comparison.used > report.worst) {
      report.worst = comparison.used;
      report.worst_text = fmt::format("step {}, request {} ({} tokens), layer {}, head {}: {}", sample.step,
                                      sample.request, sample.length, sample.layer, sample.head, comparison.message);
    }
  }
  return report;
}

}  // namespace flash_mla::tools
