// Growth, sharing and reading of the page lists: see page_book.h. Run by PagedKvCache.
#include "cache/page_book.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/int_math.h"

namespace flash_mla {
namespace {

// Lengths go to decode as int32, which rounds them up to blocks.
constexpr std::int64_t kMaxLength = std::numeric_limits<std::int32_t>::max() - (kBlockTokens - 1);

long long number(std::int64_t x) { return x; }
long long number(RequestId id) { return static_cast<long long>(id); }

// "requests[3]" for the messages.
struct ArgumentName {
  char text[40];
  explicit ArgumentName(std::size_t index) { std::snprintf(text, sizeof text, "requests[%zu]", index); }
};

}  // namespace

std::int64_t PageBook::pages_for(std::int64_t tokens) const noexcept {
  return ceil_div<std::int64_t>(tokens, page_size_);
}

// ---- Requests -------------------------------------------------------------------------------------------------------

Result<RequestId> PageBook::add() {
  requests_.reserve_one();
  return requests_.insert();
}

Result<RequestId> PageBook::fork(RequestId parent) {
  if (!requests_.find(parent)) return requests_.unknown("parent", parent);
  requests_.reserve_one();
  const Request& from = *requests_.find(parent);  // reserve_one() may have moved it
  std::vector<std::int32_t>& pages = requests_.next_pages();
  pages.reserve(from.pages.size());

  pages.assign(from.pages.begin(), from.pages.end());
  for (std::int32_t page : pages) pool_.retain(page);
  tokens_ += from.length;
  const std::int64_t length = from.length;
  const RequestId id = requests_.insert();
  requests_.find(id)->length = length;
  return id;
}

Status PageBook::remove(RequestId id) noexcept {
  Status status = truncate(id, 0);
  if (status.ok()) requests_.erase(*requests_.find(id));
  return status;
}

Status PageBook::truncate(RequestId id, std::int64_t length) noexcept {
  Request* request = requests_.find(id);
  if (!request) return requests_.unknown("request", id);
  if (length < 0 || length > request->length) {
    return make_error(StatusCode::invalid_argument, "length is %lld; request %lld holds %lld tokens", number(length),
                      number(id), number(request->length));
  }
  cut(*request, length);
  return {};
}

void PageBook::cut(Request& request, std::int64_t length) noexcept {
  // Last page first: the pool's stack then hands them out again in their old order.
  for (auto kept = pages_for(length); static_cast<std::int64_t>(request.pages.size()) > kept;) {
    pool_.release(request.pages.back());
    request.pages.pop_back();
  }
  tokens_ -= request.length - length;
  request.length = length;
}

// ---- Calls about the tokens of several requests ---------------------------------------------------------------------

// Fills steps_; every id must be known and occur once, every count be >= 0.
Status PageBook::resolve(RequestIds ids, TokenCounts counts) {
  if (ids.size() != counts.size()) {
    return make_error(StatusCode::invalid_argument, "num_tokens has %zu entries, but requests has %zu", counts.size(),
                      ids.size());
  }
  steps_.clear();
  steps_.reserve(ids.size());
  ++call_;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    Request* request = requests_.find(ids[i]);
    if (!request) return requests_.unknown(ArgumentName(i).text, ids[i]);
    if (request->last_call == call_) {
      return make_error(StatusCode::invalid_argument, "requests[%zu] is %lld, which occurs twice in this call", i,
                        number(ids[i]));
    }
    if (counts[i] < 0) {
      return make_error(StatusCode::invalid_argument, "num_tokens[%zu] is %d; it must be >= 0", i, counts[i]);
    }
    request->last_call = call_;
    steps_.push_back({.request = request, .tokens = counts[i]});
  }
  return {};
}

// Fills in the rest of steps_ and gives the pages that they take together.
Result<std::int64_t> PageBook::plan_growth(RequestIds ids, TokenCounts counts) {
  if (Status status = resolve(ids, counts); !status.ok()) return status;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (steps_[i].request->length + counts[i] > kMaxLength) {
      return make_error(StatusCode::invalid_argument, "num_tokens[%zu] is %d: request %lld would exceed %lld tokens", i,
                        counts[i], number(ids[i]), number(kMaxLength));
    }
  }
  std::int64_t needed = 0;
  for (Step& step : steps_) {
    const Request& request = *step.request;
    step.new_pages = pages_for(request.length + step.tokens) - static_cast<std::int64_t>(request.pages.size());
    if (step.tokens > 0 && request.length % page_size_ != 0) {
      // Of the requests that share a last page and grow together, the last one keeps it if nobody else is left.
      std::int32_t& leaving = page_notes_[request.pages.back()].count;
      step.copies_last = pool_.references(request.pages.back()) - leaving > 1;
      leaving += step.copies_last;
    }
    needed += step.new_pages + step.copies_last;
  }
  for (const Step& step : steps_) {
    if (step.copies_last) page_notes_[step.request->pages.back()] = {};
  }
  return needed;
}

Result<std::int64_t> PageBook::pages_needed(RequestIds ids, TokenCounts counts) { return plan_growth(ids, counts); }

Result<std::int64_t> PageBook::prepare_growth(RequestIds ids, TokenCounts counts) {
  const Result<std::int64_t> needed = plan_growth(ids, counts);
  if (!needed.ok()) return needed.status();
  if (*needed > pool_.num_free()) {
    return make_error(StatusCode::out_of_pages, "%lld pages are needed, %d of %d are free", number(*needed),
                      pool_.num_free(), pool_.num_pages());
  }
  page_copies_.clear();
  page_copies_.reserve(2 * steps_.size());
  std::int32_t taken = 0;
  std::int64_t tokens = 0;
  for (const Step& step : steps_) {
    std::vector<std::int32_t>& pages = step.request->pages;
    const std::size_t size = pages.size() + step.new_pages;
    if (size > pages.capacity()) pages.reserve(std::max({size, 2 * pages.capacity(), std::size_t{16}}));
    if (step.copies_last) {
      page_copies_.push_back(pages.back());
      page_copies_.push_back(pool_.peek(taken));
    }
    taken += static_cast<std::int32_t>(step.new_pages) + step.copies_last;
    tokens += step.tokens;
  }
  return tokens;
}

void PageBook::commit_growth() noexcept {
  for (const Step& step : steps_) {
    Request& request = *step.request;
    if (step.copies_last) {
      pool_.release(request.pages.back());  // shared, so it does not become free here
      request.pages.back() = pool_.take();
    }
    for (std::int64_t i = 0; i < step.new_pages; ++i) request.pages.push_back(pool_.take());
    request.length += step.tokens;
    tokens_ += step.tokens;
  }
}

void PageBook::retract_growth() noexcept {
  for (const Step& step : steps_) cut(*step.request, step.request->length - step.tokens);
}

Status PageBook::check_private(std::size_t index, RequestId id) const noexcept {
  const Request& request = *steps_[index].request;
  const std::int64_t first = request.length - steps_[index].tokens;
  if (first == request.length) return {};
  for (std::int64_t i = first / page_size_; i < static_cast<std::int64_t>(request.pages.size()); ++i) {
    if (const std::int32_t page = request.pages[i]; pool_.references(page) > 1) {
      return make_error(StatusCode::invalid_argument,
                        "requests[%zu] is %lld: its token %lld lies in page %d, which %d requests share", index,
                        number(id), number(std::max(first, i * page_size_)), page, pool_.references(page));
    }
  }
  return {};
}

Result<std::int64_t> PageBook::begin_slots(RequestIds ids, TokenCounts counts, bool writable) {
  if (Status status = resolve(ids, counts); !status.ok()) return status;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (counts[i] > steps_[i].request->length) {
      return make_error(StatusCode::invalid_argument, "num_tokens[%zu] is %d, but request %lld holds %lld tokens", i,
                        counts[i], number(ids[i]), number(steps_[i].request->length));
    }
    if (writable) {
      if (Status status = check_private(i, ids[i]); !status.ok()) return status;
    }
    total += counts[i];
  }
  return total;
}

void PageBook::next_slots(SlotCursor& cursor, std::span<std::int64_t> out) const noexcept {
  for (std::size_t filled = 0; filled < out.size();) {
    const Step& step = steps_[cursor.request];
    if (cursor.token == step.tokens) {
      ++cursor.request, cursor.token = 0;
      continue;
    }
    const std::int64_t token = step.request->length - step.tokens + cursor.token, row = token % page_size_;
    const std::int64_t page = step.request->pages[token / page_size_];
    const std::int64_t run = std::min<std::int64_t>(
        {page_size_ - row, step.tokens - cursor.token, static_cast<std::int64_t>(out.size() - filled)});
    for (std::int64_t i = 0; i < run; ++i) out[filled + i] = page * page_size_ + row + i;
    filled += run;
    cursor.token += run;
  }
}

// ---- Reading --------------------------------------------------------------------------------------------------------

Result<std::int64_t> PageBook::length(RequestId id) noexcept {
  const Request* request = requests_.find(id);
  if (!request) return requests_.unknown("request", id);
  return request->length;
}

Status PageBook::find_all(RequestIds ids, std::int64_t* longest) noexcept {
  *longest = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Request* request = requests_.find(ids[i]);
    if (!request) return requests_.unknown(ArgumentName(i).text, ids[i]);
    *longest = std::max(*longest, static_cast<std::int64_t>(request->pages.size()));
  }
  return {};
}

Result<std::int64_t> PageBook::max_pages(RequestIds ids) noexcept {
  std::int64_t longest = 0;
  if (Status status = find_all(ids, &longest); !status.ok()) return status;
  return longest;
}

Status PageBook::tables(RequestIds ids, std::int64_t columns, std::span<std::int32_t> block_table,
                        std::span<std::int32_t> cache_seqlens) noexcept {
  std::int64_t longest = 0;
  if (Status status = find_all(ids, &longest); !status.ok()) return status;
  if (columns < longest) {
    return make_error(StatusCode::invalid_argument, "columns is %lld; the longest request has %lld pages",
                      number(columns), number(longest));
  }
  // Divided, so that a wild `columns` cannot overflow.
  const bool fits = ids.empty() || columns == 0
                        ? block_table.empty()
                        : block_table.size() % ids.size() == 0 &&
                              block_table.size() / ids.size() == static_cast<std::size_t>(columns);
  if (!fits) {
    return make_error(StatusCode::invalid_argument, "block_table has %zu entries, not %zu requests x %lld columns",
                      block_table.size(), ids.size(), number(columns));
  }
  if (cache_seqlens.size() != ids.size()) {
    return make_error(StatusCode::invalid_argument, "cache_seqlens has %zu entries, but requests has %zu",
                      cache_seqlens.size(), ids.size());
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Request& request = *requests_.find(ids[i]);
    const std::span<std::int32_t> row = block_table.subspan(i * columns, columns);
    std::fill(std::copy(request.pages.begin(), request.pages.end(), row.begin()), row.end(), -1);
    cache_seqlens[i] = static_cast<std::int32_t>(request.length);
  }
  return {};
}

// Rows of pages in use that hold no token of any request. Only a page that is the partly filled last page of all
// requests that reference it has such rows: those past its longest reference.
std::int64_t PageBook::rows_unused() noexcept {
  const auto partly_filled = [&](const Request& r) { return r.live && r.length % page_size_ != 0; };
  for (const Request& request : requests_.slots()) {
    if (!partly_filled(request)) continue;
    PageNote& note = page_notes_[request.pages.back()];
    ++note.count;
    note.rows = std::max(note.rows, static_cast<std::int32_t>(request.length % page_size_));
  }
  std::int64_t unused = 0;
  for (const Request& request : requests_.slots()) {
    if (!partly_filled(request)) continue;
    PageNote& note = page_notes_[request.pages.back()];
    if (note.count == pool_.references(request.pages.back())) unused += page_size_ - note.rows;
    note = {};  // so that a shared page counts once
  }
  return unused;
}

PagedKvCacheStats PageBook::stats() noexcept {
  PagedKvCacheStats stats;
  stats.pages_total = pool_.num_pages();
  stats.pages_in_use = pool_.num_in_use();
  stats.pages_shared = pool_.num_shared();
  stats.requests = requests_.size();
  stats.tokens = tokens_;
  const std::int64_t rows = static_cast<std::int64_t>(stats.pages_in_use) * page_size_, unused = rows_unused();
  stats.tokens_stored = rows - unused;
  stats.internal_fragmentation = rows == 0 ? 0 : static_cast<double>(unused) / static_cast<double>(rows);
  return stats;
}

}  // namespace flash_mla
