// Three plain loops per (request, group of 8 rows): scores, softmax, weighted sum of the values. The rows of a group
// share each token while it is in the first cache. Parallel over requests and groups with OpenMP; built with -O3
// -march=native -ffast-math, so that every inner loop vectorises (the sums, and exp through libmvec). It is spared the
// conversion from bf16.
#include "cpu/baseline_decode.h"

#include <algorithm>
#include <cmath>

namespace flash_mla::bench {
namespace {

struct Tokens {
  const float* cache;
  const std::int32_t* pages;
  const float* operator[](std::int64_t t) const {
    return cache + (pages[t / kBlockTokens] * std::int64_t{kBlockTokens} + t % kBlockTokens) * kHeadDim;
  }
};

constexpr int kGroup = 8;

// q and out: [rows, 576] and [rows, 512], rows <= kGroup; row i sees visible[i] tokens. s: [kGroup, stride].
void decode_group(const float* q, const Tokens& tokens, int rows, const std::int64_t* visible, float scale, float* s,
                  std::int64_t stride, float* out) {
  const std::int64_t longest = *std::max_element(visible, visible + rows);
  for (std::int64_t t = 0; t < longest; ++t) {
    const float* k = tokens[t];
    for (int i = 0; i < rows; ++i) {
      float sum = 0;
      for (int c = 0; c < kHeadDim; ++c) sum += q[i * kHeadDim + c] * k[c];
      s[i * stride + t] = sum * scale;
    }
  }
  float total[kGroup];
  for (int i = 0; i < rows; ++i) {
    float* row = s + i * stride;
    float max = -1e30f;
    total[i] = 0;
    for (std::int64_t t = 0; t < visible[i]; ++t) max = std::max(max, row[t]);
    for (std::int64_t t = 0; t < visible[i]; ++t) total[i] += row[t] = std::exp(row[t] - max);
    for (std::int64_t t = visible[i]; t < longest; ++t) row[t] = 0;
  }
  float o[kGroup][kLatentDim] = {};
  for (std::int64_t t = 0; t < longest; ++t) {
    const float* v = tokens[t];
    for (int i = 0; i < rows; ++i) {
      const float p = s[i * stride + t];
      for (int c = 0; c < kLatentDim; ++c) o[i][c] += p * v[c];
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int c = 0; c < kLatentDim; ++c) out[i * kLatentDim + c] = visible[i] > 0 ? o[i][c] / total[i] : 0.0f;
  }
}

}  // namespace

void baseline_decode(Problem& problem) {
  const int batch = static_cast<int>(problem.shape.lengths.size());
  const int rows = problem.shape.seqlen_q * problem.shape.heads;
  const std::int64_t longest = *std::max_element(problem.shape.lengths.begin(), problem.shape.lengths.end());
#pragma omp parallel
  {
    std::vector<float> s(static_cast<std::size_t>(kGroup * longest));
#pragma omp for collapse(2) schedule(dynamic)
    for (int request = 0; request < batch; ++request) {
      for (int row = 0; row < rows; row += kGroup) {
        const Tokens tokens{static_cast<const float*>(problem.cache_f32.data),
                            &problem.block_table[request * problem.table_columns]};
        const int count = std::min(kGroup, rows - row);
        std::int64_t visible[kGroup];
        for (int i = 0; i < count; ++i) {
          const int query = (row + i) / problem.shape.heads;
          visible[i] = std::max(0, problem.shape.lengths[request] - problem.shape.seqlen_q + query + 1);
        }
        const std::int64_t index = std::int64_t{request} * rows + row;
        decode_group(&problem.q_f32[index * kHeadDim], tokens, count, visible, problem.softmax_scale, s.data(), longest,
                     &problem.out_f32[index * kLatentDim]);
      }
    }
  }
}

}  // namespace flash_mla::bench
