// See reference.h.
#include "reference/reference.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "reference/float_format.h"

namespace flash_mla::reference {
namespace {

const char* address(const TensorView& view, std::initializer_list<std::int64_t> index) {
  std::int64_t offset = 0;
  int axis = 0;
  for (std::int64_t i : index) offset += i * view.strides[axis++];
  return static_cast<const char*>(view.data) + offset * size_in_bytes(view.dtype);
}

double element(const TensorView& view, std::initializer_list<std::int64_t> index) {
  return load_element(view.dtype, address(view, index));
}

std::int32_t integer(const TensorView& view, std::initializer_list<std::int64_t> index) {
  return *reinterpret_cast<const std::int32_t*>(address(view, index));
}

// `count` neighbours of the last dimension, from `index` on.
void load_columns(const TensorView& view, std::initializer_list<std::int64_t> index, double* to, int count) {
  const char* from = address(view, index);
  const std::int64_t step_bytes = view.strides[view.rank - 1] * size_in_bytes(view.dtype);
  for (int column = 0; column < count; ++column) to[column] = load_element(view.dtype, from + column * step_bytes);
}

double dot(const std::array<double, kHeadDim>& a, const std::array<double, kHeadDim>& b) {
  constexpr int kLanes = 8;  // separate sums, so that the compiler may vectorise
  double sums[kLanes] = {};
  for (int i = 0; i < kHeadDim; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  double sum = 0;
  for (double lane : sums) sum += lane;
  return sum;
}

Row empty_row() {
  Row row;
  row.lse = std::numeric_limits<double>::infinity();
  return row;
}

}  // namespace

Reference::Reference(const DecodeArgs& args, bool causal) : args_(args), causal_(causal) {}

std::int32_t Reference::batch() const { return static_cast<std::int32_t>(args_.cache_seqlens.shape[0]); }

std::int32_t Reference::heads() const {
  return static_cast<std::int32_t>(args_.cu_seqlens_q.given() ? args_.q.shape[1] : args_.q.shape[2]);
}

std::int32_t Reference::queries(std::int32_t request) const {
  if (!args_.cu_seqlens_q.given()) return static_cast<std::int32_t>(args_.q.shape[1]);
  const auto end = request < batch() ? integer(args_.cu_seqlens_q, {request + 1}) : args_.q.shape[0];
  return static_cast<std::int32_t>(end) - integer(args_.cu_seqlens_q, {request});
}

std::int32_t Reference::length(std::int32_t request) const {
  return request < batch() ? integer(args_.cache_seqlens, {request}) : 0;
}

std::int32_t Reference::visible(std::int32_t request, std::int32_t query) const {
  if (!causal_) return length(request);
  return std::max(0, length(request) - queries(request) + query + 1);
}

std::vector<RowId> Reference::all_rows() const {
  const auto heads_per_kv = heads() / static_cast<std::int32_t>(args_.kv_cache.shape[2]);
  const std::int32_t requests = batch() + (args_.cu_seqlens_q.given() ? 1 : 0);
  std::vector<RowId> rows;
  for (std::int32_t request = 0; request < requests; ++request) {
    for (std::int32_t first = 0; first < heads(); first += heads_per_kv) {
      for (std::int32_t query = 0; query < queries(request); ++query) {
        for (std::int32_t head = first; head < first + heads_per_kv; ++head) rows.push_back({request, query, head});
      }
    }
  }
  return rows;
}

Reference::Token Reference::query_vector(RowId id) const {
  Token vector;
  const auto load = [&](const TensorView& view, double* to, int count) {
    if (args_.cu_seqlens_q.given()) {
      load_columns(view, {integer(args_.cu_seqlens_q, {id.request}) + id.query, id.head}, to, count);
    } else {
      load_columns(view, {id.request, id.query, id.head}, to, count);
    }
  };
  load(args_.q, vector.data(), args_.q_rope.given() ? kLatentDim : kHeadDim);
  if (args_.q_rope.given()) load(args_.q_rope, vector.data() + kLatentDim, kRopeDim);
  return vector;
}

void Reference::gather_tokens(std::int32_t request, std::int32_t kv_head) {
  if (request == gathered_request_ && kv_head == gathered_kv_head_) return;
  gathered_request_ = request, gathered_kv_head_ = kv_head;
  const auto page_size = static_cast<std::int32_t>(args_.kv_cache.shape[1]);
  tokens_.resize(static_cast<std::size_t>(length(request)));
  for (std::int32_t t = 0; t < length(request); ++t) {
    const std::int32_t page = integer(args_.block_table, {request, t / page_size});
    double* token = tokens_[static_cast<std::size_t>(t)].data();
    const int joint_columns = args_.k_rope_cache.given() ? kLatentDim : kHeadDim;
    load_columns(args_.kv_cache, {page, t % page_size, kv_head}, token, joint_columns);
    if (args_.k_rope_cache.given()) {
      load_columns(args_.k_rope_cache, {page, t % page_size, kv_head}, token + kLatentDim, kRopeDim);
    }
  }
}

ReferenceRow Reference::row(RowId id) {
  const std::int32_t count = visible(id.request, id.query);
  if (count == 0) return {empty_row(), empty_row()};
  const auto heads_per_kv = heads() / static_cast<std::int32_t>(args_.kv_cache.shape[2]);
  gather_tokens(id.request, id.head / heads_per_kv);
  const Token q = query_vector(id);

  std::vector<double> scores(static_cast<std::size_t>(count));
  double max = -std::numeric_limits<double>::infinity();
  for (std::int32_t t = 0; t < count; ++t) {
    scores[t] = static_cast<double>(args_.softmax_scale) * dot(q, tokens_[t]);
    max = std::max(max, scores[t]);
  }

  ReferenceRow row;
  double sum = 0;
  for (std::int32_t t = 0; t < count; ++t) {
    const double p = std::exp(scores[t] - max);
    const double rounded_p = round_to(args_.q.dtype, p);
    sum += p;
    for (int column = 0; column < kLatentDim; ++column) {
      row.exact.out[column] += p * tokens_[t][column];
      row.model.out[column] += rounded_p * tokens_[t][column];
    }
  }
  for (int column = 0; column < kLatentDim; ++column) {
    row.exact.out[column] /= sum;
    row.model.out[column] = round_to(args_.out.dtype, row.model.out[column] / sum);
  }
  row.exact.lse = row.model.lse = max + std::log(sum);
  return row;
}

Row Reference::result(RowId id) const {
  Row row;
  const TensorView& lse = args_.lse;
  if (args_.cu_seqlens_q.given()) {
    const std::int64_t token = integer(args_.cu_seqlens_q, {id.request}) + id.query;
    load_columns(args_.out, {token, id.head}, row.out.data(), kLatentDim);
    row.lse = lse.given() ? element(lse, {id.head, token}) : std::numeric_limits<double>::quiet_NaN();
  } else {
    load_columns(args_.out, {id.request, id.query, id.head}, row.out.data(), kLatentDim);
    row.lse = lse.given() ? element(lse, {id.request, id.head, id.query}) : std::numeric_limits<double>::quiet_NaN();
  }
  return row;
}

ReferenceRow reference_row(const DecodeArgs& args, bool causal, RowId id) { return Reference(args, causal).row(id); }

}  // namespace flash_mla::reference
