// Continuous batching; see engine.h.
#include "replay/engine.h"

#include <algorithm>
#include <numeric>

#include "support/errors.h"

namespace flash_mla::tools {

Engine::Engine(std::span<const TraceRequest> requests, std::int32_t max_batch, PagedKvCache& cache)
    : requests_(requests),
      max_batch_(max_batch),
      cache_(&cache),
      reserve_pages_((cache.config().num_pages + 99) / 100),
      waiting_(requests.size()),
      generated_(requests.size(), 0),
      has_entered_(requests.size(), false) {
  std::iota(waiting_.begin(), waiting_.end(), 0);
  counts_.requests = static_cast<std::int64_t>(requests.size());
  const std::int64_t pool_tokens = std::int64_t{cache.config().num_pages} * cache.config().page_size;
  for (const TraceRequest& request : requests) {
    if (request.final_tokens() > pool_tokens) {
      throw RunError(
          fmt::format("a request of {} tokens can never fit into a pool of {}", request.final_tokens(), pool_tokens));
    }
  }
}

void Engine::begin_step() {
  const std::int64_t preemptions_before = counts_.preemptions;
  grow_running();
  // Who was just preempted must not push out another at once.
  if (counts_.preemptions == preemptions_before) admit_waiting();
}

void Engine::grow_running() {
  std::vector<RequestId> ids;
  for (const RunningRequest& request : running_) ids.push_back(request.id);
  std::vector<std::int32_t> ones(ids.size(), 1);
  while (!ids.empty() && must(cache_->pages_needed(ids, ones), "pages_needed") > cache_->free_pages()) {
    preempt_youngest();
    ids.pop_back(), ones.pop_back();
  }
  must(cache_->grow(ids, ones), "grow");
  for (RunningRequest& request : running_) request.length += 1, request.new_tokens = 1;
}

void Engine::preempt_youngest() {
  const RunningRequest& youngest = running_.back();
  must(cache_->remove(youngest.id), "remove");
  waiting_.push_front(youngest.index);  // all that wait arrived later
  running_.pop_back();
  counts_.preemptions += 1;
}

bool Engine::fits(std::int64_t tokens) const noexcept {
  const std::int64_t page_size = cache_->config().page_size;
  const std::int64_t pages = (tokens + page_size - 1) / page_size;
  return pages + (running_.empty() ? 0 : reserve_pages_) <= cache_->free_pages();
}

void Engine::admit_waiting() {
  while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < max_batch_) {
    const std::int64_t index = waiting_.front();
    const TraceRequest& request = requests_[index];
    if (request.generated_tokens == 0) {  // nothing to decode: it comes and goes
      waiting_.pop_front();
      counts_.entered += 1, counts_.finished += 1;
      continue;
    }
    if (!fits(request.context_tokens + generated_[index] + 1)) return;
    waiting_.pop_front();
    enter(index);
  }
}

void Engine::enter(std::int64_t index) {
  const std::int64_t cached = requests_[index].context_tokens + generated_[index];
  const RequestId id = must(cache_->add(), "add");
  const auto tokens = static_cast<std::int32_t>(cached + 1);
  must(cache_->grow({&id, 1}, {&tokens, 1}), "grow");
  running_.push_back({index, id, generated_[index], cached + 1, cached + 1});
  if (has_entered_[index]) {
    counts_.resumptions += 1;
    counts_.recomputed_tokens += cached;
  } else {
    has_entered_[index] = true;
    counts_.entered += 1;
    counts_.context_tokens += cached;
  }
}

void Engine::end_step() {
  counts_.generated_tokens += static_cast<std::int64_t>(running_.size());
  for (RunningRequest& request : running_) {
    request.generated = ++generated_[request.index];
    if (request.generated == requests_[request.index].generated_tokens) {
      must(cache_->remove(request.id), "remove");
      counts_.finished += 1;
    }
  }
  std::erase_if(running_, [&](const RunningRequest& request) {
    return request.generated == requests_[request.index].generated_tokens;
  });
}

EngineCounts Engine::counts() const noexcept {
  EngineCounts counts = counts_;
  counts.running = static_cast<std::int64_t>(running_.size());
  counts.waiting = static_cast<std::int64_t>(waiting_.size());
  counts.waiting_preempted = counts.preemptions - counts.resumptions;
  return counts;
}

}  // namespace flash_mla::tools
