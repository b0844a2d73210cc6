// Three plain loops per (request, query token, head): scores, softmax, weighted sum of the values. Parallel over
// requests and heads with OpenMP; built with -O3 -march=native -ffast-math, so that every inner loop vectorises (the
// sums, and expf through libmvec). It is spared the conversion from bf16.
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

void decode_row(const float* q, const Tokens& tokens, std::int64_t visible, float scale, float* s, float* out) {
  for (std::int64_t t = 0; t < visible; ++t) {
    const float* k = tokens[t];
    float sum = 0;
    for (int c = 0; c < kHeadDim; ++c) sum += q[c] * k[c];
    s[t] = sum * scale;
  }
  float max = -1e30f, total = 0;
  for (std::int64_t t = 0; t < visible; ++t) max = std::max(max, s[t]);
  for (std::int64_t t = 0; t < visible; ++t) total += s[t] = std::exp(s[t] - max);

  float o[kLatentDim] = {};
  for (std::int64_t t = 0; t < visible; ++t) {
    const float* v = tokens[t];
    const float p = s[t];
    for (int c = 0; c < kLatentDim; ++c) o[c] += p * v[c];
  }
  for (int c = 0; c < kLatentDim; ++c) out[c] = visible > 0 ? o[c] / total : 0.0f;
}

}  // namespace

void baseline_decode(Problem& problem) {
  const int batch = static_cast<int>(problem.shape.lengths.size());
  const int rows = problem.shape.seqlen_q * problem.shape.heads;
  const std::int32_t longest = *std::max_element(problem.shape.lengths.begin(), problem.shape.lengths.end());
#pragma omp parallel
  {
    std::vector<float> s(static_cast<std::size_t>(longest));
#pragma omp for collapse(2) schedule(dynamic, 8)
    for (int request = 0; request < batch; ++request) {
      for (int row = 0; row < rows; ++row) {
        const Tokens tokens{static_cast<const float*>(problem.cache_f32.data),
                            &problem.block_table[request * problem.table_columns]};
        const std::int64_t index = std::int64_t{request} * rows + row;
        const std::int64_t visible =
            std::max(0, problem.shape.lengths[request] - problem.shape.seqlen_q + row / problem.shape.heads + 1);
        decode_row(&problem.q_f32[index * kHeadDim], tokens, visible, problem.softmax_scale, s.data(),
                   &problem.out_f32[index * kLatentDim]);
      }
    }
  }
}

}  // namespace flash_mla::bench
