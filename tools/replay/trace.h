// A trace: what each request brings (context tokens that are in the cache when it arrives) and wants (tokens to
// generate), in order of arrival. Read from a CSV file `TIMESTAMP,ContextTokens,GeneratedTokens` or drawn from the
// built-in distribution.
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace flash_mla::tools {

struct TraceRequest {
  std::int64_t context_tokens = 0;
  std::int64_t generated_tokens = 0;
  std::int64_t line = 0;  // in the file; 0 when drawn

  [[nodiscard]] std::int64_t final_tokens() const noexcept { return context_tokens + generated_tokens; }
};

struct Trace {
  std::string source;  // the file's name, or what it was drawn from
  std::vector<TraceRequest> requests;
};

// Accepts a header, blank lines, CRLF and a byte-order mark. A timestamp is `YYYY-MM-DD hh:mm:ss[.fraction]`, with an
// optional zone, or a number of seconds; requests are ordered by it. Throws InputError naming file, line and text.
Trace parse_trace(std::istream& input, const std::string& name);
Trace read_trace(const std::string& path);

// num_requests draws, the same for the same seed everywhere, with the percentiles of one hour of a production chat
// service (the public Azure LLM inference trace of 2023): context p50 1020, p90 2734, p99 4142; output mean 211.
Trace built_in_trace(std::int64_t num_requests, std::uint64_t seed);

// Requests that can never fit into a pool of `pool_tokens` (their last step's tokens, rounded up to pages). Unless
// `skip` is set the first one is an InputError; else they are taken out and counted.
std::int64_t drop_too_long(Trace& trace, std::int64_t num_pages, std::int64_t page_size, bool skip);

}  // namespace flash_mla::tools
