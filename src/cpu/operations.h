// merge() of the public API on the CPU, and what writes into caches: append and copy_pages. Rows, tokens and pages are
// dealt over OpenMP threads.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace flash_mla::cpu {

// Step 8 of docs/algorithm.md over shards: lse = ln sum_i exp(lse_i), out = sum_i exp(lse_i - lse) * out_i.
void merge_shards(const MergeProblem& problem);

// Step 9: writes each token into its slot; negative slots are skipped, and so are those past the end.
void append(const AppendProblem& problem);

void copy_pages(const CopyPagesProblem& problem);

// Memory for a cache, aligned to 128 bytes; null when there is none. Large ones ask for huge pages: a cached token is
// met at random, and with small pages each block of 72 KB costs 18 walks of the page table. Freed by std::free.
void* allocate_pages(std::int64_t bytes);

}  // namespace flash_mla::cpu
