// See device_reference.h. Everything is indexed through shapes and strides, nothing is staged or shared.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "device/device_reference.h"

namespace flash_mla::reference {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kScratchBytes = 1 << 30;  // scores of the rows that run at a time

void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::int64_t count) : count_(count) {
    check(cudaMalloc(&data_, std::max<std::int64_t>(count, 1) * sizeof(T)), "cudaMalloc");
  }
  explicit DeviceArray(std::span<const T> host) : DeviceArray(static_cast<std::int64_t>(host.size())) {
    check(cudaMemcpy(data_, host.data(), host.size_bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }
  T* data() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> copy(count_);
    check(cudaMemcpy(copy.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return copy;
  }

 private:
  T* data_ = nullptr;
  std::int64_t count_;
};

// Types by hand: shift and scale, not the toolkit's conversions that kernels use.
__device__ double load(const TensorView& view, std::int64_t offset) {
  if (view.dtype == DType::f32) return static_cast<const float*>(view.data)[offset];
  const unsigned bits = static_cast<const unsigned short*>(view.data)[offset];
  if (view.dtype == DType::bf16) return __uint_as_float(bits << 16);
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double magnitude = exponent == 0 ? ldexp(static_cast<double>(fraction), -24)
                                   : ldexp(static_cast<double>(1024 + fraction), exponent - 25);
  if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
  return bits >> 15 ? -magnitude : magnitude;
}

// The nearest value of bf16 (8 bits of significand, exponents from -126) or fp16 (11, from -14), ties to even.
__device__ double round_to_type(DType dtype, double x) {
  if (!isfinite(x) || x == 0) return x;
  if (dtype == DType::f32) return static_cast<double>(static_cast<float>(x));
  const int bits = dtype == DType::bf16 ? 8 : 11, least = dtype == DType::bf16 ? -126 : -14;
  int exponent;
  frexp(x, &exponent);
  const int quantum = max(exponent - 1, least) - (bits - 1);
  const double rounded = ldexp(rint(ldexp(x, -quantum)), quantum);
  const double largest = dtype == DType::bf16 ? 0x1.fep127 : 65504.0;
  return fabs(rounded) > largest ? copysign(INFINITY, x) : rounded;
}

struct Task {
  DecodeArgs args;
  bool causal;
  bool ragged;
  std::int64_t scores_stride;
};

struct RowPlace {
  std::int32_t length, queries, visible, kv_head;
  std::int64_t token;  // ragged: over the step
};

__device__ RowPlace place_of(const Task& task, const RowId& row) {
  const DecodeArgs& args = task.args;
  const auto* lengths = static_cast<const std::int32_t*>(args.cache_seqlens.data);
  const auto* cu = static_cast<const std::int32_t*>(args.cu_seqlens_q.data);
  const std::int64_t step = args.cu_seqlens_q.strides[0];
  const bool padding = row.request == args.cache_seqlens.shape[0];  // query tokens past the last request's
  RowPlace place;
  place.length = padding ? 0 : lengths[row.request * args.cache_seqlens.strides[0]];
  place.queries = 0;
  if (!task.ragged) place.queries = static_cast<std::int32_t>(args.q.shape[1]);
  if (task.ragged && !padding) place.queries = cu[(row.request + 1) * step] - cu[row.request * step];
  place.token = task.ragged ? cu[row.request * step] + row.query : row.query;
  place.visible = task.causal ? min(place.length, place.length - place.queries + row.query + 1) : place.length;
  place.visible = max(place.visible, 0);
  const std::int64_t heads = args.q.shape[args.q.rank - 2], kv_heads = args.kv_cache.shape[2];
  place.kv_head = static_cast<std::int32_t>(row.head / (heads / kv_heads));
  return place;
}

// Offset of column 0 of a row in a tensor shaped like q.
__device__ std::int64_t row_offset(const Task& task, const TensorView& view, const RowId& row, const RowPlace& place) {
  if (task.ragged) return place.token * view.strides[0] + row.head * view.strides[1];
  return row.request * view.strides[0] + place.token * view.strides[1] + row.head * view.strides[2];
}
__device__ std::int64_t lse_offset(const Task& task, const RowId& row, const RowPlace& place) {
  const TensorView& lse = task.args.lse;
  if (task.ragged) return row.head * lse.strides[0] + place.token * lse.strides[1];
  return row.request * lse.strides[0] + row.head * lse.strides[1] + place.token * lse.strides[2];
}

__device__ std::int64_t token_offset(const Task& task, const TensorView& cache, const RowId& row, int kv_head, int t) {
  const TensorView& table = task.args.block_table;
  const int page_size = static_cast<int>(cache.shape[1]);
  const std::int64_t page =
      static_cast<const std::int32_t*>(table.data)[row.request * table.strides[0] + t / page_size * table.strides[1]];
  return page * cache.strides[0] + t % page_size * cache.strides[1] + kv_head * cache.strides[2];
}

__device__ double query_column(const Task& task, const RowId& row, const RowPlace& place, int column) {
  const DecodeArgs& args = task.args;
  const bool apart = column >= kLatentDim && args.q_rope.rank != 0;
  const TensorView& view = apart ? args.q_rope : args.q;
  return load(view, row_offset(task, view, row, place) + (apart ? column - kLatentDim : column));
}
__device__ double cache_column(const Task& task, const RowId& row, int kv_head, int t, int column) {
  const DecodeArgs& args = task.args;
  const bool apart = column >= kLatentDim && args.k_rope_cache.rank != 0;
  const TensorView& view = apart ? args.k_rope_cache : args.kv_cache;
  return load(view, token_offset(task, view, row, kv_head, t) + (apart ? column - kLatentDim : column));
}

template <class Combine>
__device__ double reduce(double value, Combine combine) {
  __shared__ double values[kThreads];
  __syncthreads();
  values[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) values[threadIdx.x] = combine(values[threadIdx.x], values[threadIdx.x + half]);
    __syncthreads();
  }
  return values[0];
}
__device__ double max_or_nan(double a, double b) { return isnan(a) || isnan(b) ? NAN : fmax(a, b); }

// exact.out = sum P v / sum P, P = exp(s - max s); the model rounds P where it meets v, and the result.
__global__ void reference_rows(const Task task, const RowId* rows, double* scores, ReferenceRow* results) {
  const RowId row = rows[blockIdx.x];
  const RowPlace place = place_of(task, row);
  const DType dtype = task.args.q.dtype;
  double* p = scores + blockIdx.x * task.scores_stride;
  ReferenceRow& result = results[blockIdx.x];

  double most = -INFINITY;
  for (int t = threadIdx.x; t < place.visible; t += kThreads) {
    double dot = 0;
    for (int column = 0; column < kHeadDim; ++column)
      dot += query_column(task, row, place, column) * cache_column(task, row, place.kv_head, t, column);
    p[t] = dot * static_cast<double>(task.args.softmax_scale);
    most = max_or_nan(most, p[t]);
  }
  most = reduce(most, max_or_nan);
  double sum = 0;
  for (int t = threadIdx.x; t < place.visible; t += kThreads) sum += p[t] = exp(p[t] - most);
  sum = reduce(sum, [](double a, double b) { return a + b; });

  for (int column = threadIdx.x; column < kLatentDim; column += kThreads) {
    double exact = 0, model = 0;
    for (int t = 0; t < place.visible; ++t) {
      const double value = cache_column(task, row, place.kv_head, t, column);
      exact += p[t] * value;
      model += round_to_type(dtype, p[t]) * value;
    }
    result.exact.out[column] = place.visible ? exact / sum : 0;
    result.model.out[column] = place.visible ? round_to_type(dtype, model / sum) : 0;
  }
  if (threadIdx.x == 0) result.exact.lse = result.model.lse = place.visible ? most + log(sum) : INFINITY;
}

// The rows that the caller's out and lse hold, as doubles.
__global__ void read_results(const Task task, const RowId* rows, Row* results) {
  const RowId row = rows[blockIdx.x];
  const RowPlace place = place_of(task, row);
  const std::int64_t offset = row_offset(task, task.args.out, row, place);
  for (int column = threadIdx.x; column < kLatentDim; column += kThreads)
    results[blockIdx.x].out[column] = load(task.args.out, offset + column);
  if (threadIdx.x == 0)
    results[blockIdx.x].lse = task.args.lse.rank ? load(task.args.lse, lse_offset(task, row, place)) : NAN;
}

std::int32_t longest_length(const DecodeArgs& args) {
  std::vector<std::int32_t> lengths(args.cache_seqlens.shape[0] * args.cache_seqlens.strides[0] + 1);
  check(cudaMemcpy(lengths.data(), args.cache_seqlens.data,
                   ((args.cache_seqlens.shape[0] - 1) * args.cache_seqlens.strides[0] + 1) * sizeof lengths[0],
                   cudaMemcpyDeviceToHost),
        "cudaMemcpy");
  std::int32_t longest = 1;
  for (std::int64_t i = 0; i < args.cache_seqlens.shape[0]; ++i)
    longest = std::max(longest, lengths[i * args.cache_seqlens.strides[0]]);
  return longest;
}

// Calls take(first, count) for runs of rows whose scores fit into the scratch.
template <class Take>
void in_runs(std::size_t rows, std::int64_t scores_stride, Take take) {
  const auto most =
      static_cast<std::size_t>(std::clamp<std::int64_t>(kScratchBytes / (scores_stride * sizeof(double)), 1, 1 << 16));
  for (std::size_t first = 0; first < rows; first += most) take(first, std::min(most, rows - first));
}

}  // namespace

std::vector<ReferenceRow> rows_on_device(const DecodeArgs& args, bool causal, std::span<const RowId> rows) {
  std::vector<ReferenceRow> results;
  if (rows.empty()) return results;
  const Task task = {args, causal, args.cu_seqlens_q.given(), longest_length(args)};
  in_runs(rows.size(), task.scores_stride, [&](std::size_t first, std::size_t count) {
    const DeviceArray<RowId> ids(rows.subspan(first, count));
    const DeviceArray<double> scores(count * task.scores_stride);
    const DeviceArray<ReferenceRow> out(count);
    reference_rows<<<count, kThreads>>>(task, ids.data(), scores.data(), out.data());
    check(cudaGetLastError(), "reference_rows");
    const std::vector<ReferenceRow> run = out.host();
    results.insert(results.end(), run.begin(), run.end());
  });
  return results;
}

std::vector<Row> results_on_device(const DecodeArgs& args, std::span<const RowId> rows) {
  if (rows.empty()) return {};
  const Task task = {args, false, args.cu_seqlens_q.given(), 0};
  const DeviceArray<RowId> ids(rows);
  const DeviceArray<Row> out(static_cast<std::int64_t>(rows.size()));
  read_results<<<static_cast<unsigned>(rows.size()), kThreads>>>(task, ids.data(), out.data());
  check(cudaGetLastError(), "read_results");
  return out.host();
}

Comparison compare_on_device(const DecodeArgs& args, bool causal, std::span<const RowId> rows) {
  return compare_on_device(args, causal, rows, bound_of(args));
}

Comparison compare_on_device(const DecodeArgs& args, bool causal, std::span<const RowId> rows, const Bound& bound) {
  Comparison result;
  const std::vector<ReferenceRow> want = rows_on_device(args, causal, rows);
  const std::vector<Row> got = results_on_device(args, rows);
  result.used = -1;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const RowVerdict verdict = judge_row(want[i], got[i], bound);
    ++result.rows;
    if (!verdict.ok) ++result.wrong_rows;
    if (verdict.used <= result.used) continue;
    result.used = verdict.used, result.worst = rows[i];
    result.message = "request " + std::to_string(rows[i].request) + ", query " + std::to_string(rows[i].query) +
                     ", head " + std::to_string(rows[i].head) + ": " + verdict.message;
  }
  result.ok = result.wrong_rows == 0;
  result.used = std::max(result.used, 0.0);
  return result;
}

}  // namespace flash_mla::reference
