// Continuous batching over a PagedKvCache: which requests run in the next step, and what happens when pages run out.
//
// A step decodes one token of every running request. Before it
//   1. each running request grows by one token; while the pool cannot serve them all, the youngest one is preempted:
//      its pages go back, and it waits, in front of those that arrived later, with what it has generated so far;
//   2. waiting requests enter in order of arrival while the batch has room and the pool holds their context, their
//      generated tokens and the step's own, and a small reserve for the growth of the others.
// After it, requests that have all their tokens leave, and their pages are free at once.
// The oldest request is never preempted, so every request that fits into the pool alone comes to its end.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "flash_mla/paged_kv_cache.h"
#include "replay/trace.h"

namespace flash_mla::tools {

struct RunningRequest {
  std::int64_t index = 0;       // in the trace
  RequestId id = {};            // in the cache
  std::int64_t generated = 0;   // tokens of earlier steps
  std::int64_t length = 0;      // tokens in the cache, this step's included
  std::int64_t new_tokens = 0;  // of those, the last ones that have to be written before decoding
};

struct EngineCounts {
  std::int64_t requests = 0;     // in the trace
  std::int64_t entered = 0;      // requests that ran at least once
  std::int64_t finished = 0;     // requests that got all their tokens
  std::int64_t preemptions = 0;  // events
  std::int64_t resumptions = 0;  // events
  std::int64_t running = 0;
  std::int64_t waiting = 0;            // never entered, or preempted and not resumed yet
  std::int64_t waiting_preempted = 0;  // of those waiting, the preempted ones
  std::int64_t generated_tokens = 0;
  std::int64_t context_tokens = 0;     // put into the cache for requests that entered
  std::int64_t recomputed_tokens = 0;  // put into the cache again for requests that resumed
};

class Engine {
 public:
  // `requests` and `cache` must outlive the engine; the cache must be empty. Every request must fit into it alone.
  Engine(std::span<const TraceRequest> requests, std::int32_t max_batch, PagedKvCache& cache);

  // Forms the batch of the next step: running() then lists it, oldest first, and the cache has room for its tokens.
  // The batch is empty only when every request has finished.
  void begin_step();
  // Each running request has got its token.
  void end_step();

  [[nodiscard]] std::span<const RunningRequest> running() const noexcept { return running_; }
  [[nodiscard]] bool done() const noexcept { return running_.empty() && waiting_.empty(); }
  [[nodiscard]] EngineCounts counts() const noexcept;
  // Tokens that each request of the trace has generated so far.
  [[nodiscard]] std::span<const std::int64_t> generated() const noexcept { return generated_; }

 private:
  void grow_running();
  void preempt_youngest();
  void admit_waiting();
  [[nodiscard]] bool fits(std::int64_t tokens) const noexcept;
  void enter(std::int64_t index);

  std::span<const TraceRequest> requests_;
  std::int32_t max_batch_;
  PagedKvCache* cache_;
  std::int64_t reserve_pages_;
  std::deque<std::int64_t> waiting_;     // indices in order of arrival
  std::vector<RunningRequest> running_;  // in order of arrival
  std::vector<std::int64_t> generated_;  // of each request
  std::vector<bool> has_entered_;
  EngineCounts counts_;
};

}  // namespace flash_mla::tools
