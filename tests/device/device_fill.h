// Contents of tensors on the GPU, made there: what reference/problem.h fills in on the host would take seconds for the
// large ones.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "flash_mla/types.h"
#include "reference/problem_spec.h"

namespace flash_mla::test {

// Everything is enqueued. Random values depend on the seed and the place in the view, not on strides.

// Elements of a 16-bit type from the first to the last byte.
void fill_poison(void* data, std::int64_t bytes, DType dtype, reference::Poison poison, std::uint64_t seed,
                 cudaStream_t stream);
// Normally distributed elements in every row; a row is all of the last dimension.
void fill_rows(const TensorView& view, float deviation, std::uint64_t seed, cudaStream_t stream);
// The same, in the rows of a cache [num_pages, page_size, h_kv, columns] that the requests' tokens use.
void fill_tokens(const TensorView& cache, const TensorView& block_table, const TensorView& lengths, std::uint64_t seed,
                 cudaStream_t stream);
// All bytes of every row.
void fill_rows_with_byte(const TensorView& view, int byte, cudaStream_t stream);

}  // namespace flash_mla::test
