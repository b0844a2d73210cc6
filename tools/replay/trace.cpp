// Parser of traces; see trace.h.
#include "replay/trace.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>

#include "support/errors.h"
#include "support/human.h"

namespace flash_mla::tools {
namespace {

constexpr std::string_view kHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
constexpr std::int64_t kMaxTokens = std::numeric_limits<std::int32_t>::max();

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

bool same_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Unsigned decimal digits, all of them.
std::optional<int> parse_digits(std::string_view text) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  return parse_number<int>(text);
}

// "+hh:mm" or "-hh:mm" in seconds.
std::optional<double> parse_zone(std::string_view zone) {
  if (zone.empty() || zone == "Z") return 0;
  if (zone.size() != 6 || zone[3] != ':') return std::nullopt;
  const auto hours = parse_digits(zone.substr(1, 2)), minutes = parse_digits(zone.substr(4, 2));
  if ((zone[0] != '+' && zone[0] != '-') || !hours || !minutes) return std::nullopt;
  return (zone[0] == '+' ? 1 : -1) * (*hours * 3600.0 + *minutes * 60.0);
}

// Seconds since 1970, or the number itself. A double resolves a quarter of a microsecond here; only the order counts.
std::optional<double> parse_timestamp(std::string_view text) {
  if (const auto seconds = parse_number<double>(text)) {
    return std::isfinite(*seconds) ? seconds : std::nullopt;
  }
  if (text.size() < 19 || text[4] != '-' || text[7] != '-' || (text[10] != ' ' && text[10] != 'T') || text[13] != ':' ||
      text[16] != ':') {
    return std::nullopt;
  }
  const auto year = parse_digits(text.substr(0, 4)), month = parse_digits(text.substr(5, 2)),
             day = parse_digits(text.substr(8, 2)), hour = parse_digits(text.substr(11, 2)),
             minute = parse_digits(text.substr(14, 2));
  const std::size_t zone_at = std::min(text.find_first_not_of("0123456789.", 17), text.size());
  const auto second = parse_number<double>(text.substr(17, zone_at - 17));
  const auto zone = parse_zone(text.substr(zone_at));
  if (!year || !month || !day || !hour || !minute || !second || !zone) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok() || *hour > 23 || *minute > 59 || !(*second < 61)) return std::nullopt;
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return days * 86400.0 + *hour * 3600 + *minute * 60 + *second - *zone;
}

struct Arrival {
  double time;
  TraceRequest request;
};

[[noreturn]] void malformed(const std::string& name, std::int64_t line, const std::string& why, std::string_view text) {
  constexpr std::size_t kShown = 120;
  std::string shown(text.substr(0, kShown));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';  // what a terminal would take for a command
  }
  throw InputError(fmt::format("{}: line {}: {}: \"{}{}\"", name, line, why, shown, text.size() > kShown ? "..." : ""));
}

Arrival parse_line(std::string_view text, const std::string& name, std::int64_t line) {
  const auto first = text.find(','), second = first == text.npos ? text.npos : text.find(',', first + 1);
  if (second == text.npos || text.find(',', second + 1) != text.npos) {
    malformed(name, line, fmt::format("expected three fields, {}", kHeader), text);
  }
  const auto time = parse_timestamp(trimmed(text.substr(0, first)));
  if (!time) malformed(name, line, "TIMESTAMP is no date and time and no number of seconds", text);
  const auto tokens = [&](std::string_view field, const char* what) {
    const auto count = parse_number<std::int64_t>(trimmed(field));
    if (!count) malformed(name, line, fmt::format("{} is no integer", what), text);
    if (*count < 0 || *count > kMaxTokens) {
      malformed(name, line, fmt::format("{} is {}; it must be 0 to {}", what, *count, kMaxTokens), text);
    }
    return *count;
  };
  const TraceRequest request = {tokens(text.substr(first + 1, second - first - 1), "ContextTokens"),
                                tokens(text.substr(second + 1), "GeneratedTokens"), line};
  if (request.final_tokens() > kMaxTokens) {
    malformed(name, line, fmt::format("more than {} tokens in one request", kMaxTokens), text);
  }
  return {*time, request};
}

}  // namespace

Trace parse_trace(std::istream& input, const std::string& name) {
  std::vector<Arrival> arrivals;
  std::string raw;
  bool header_allowed = true;
  for (std::int64_t line = 1; std::getline(input, raw); ++line) {
    std::string_view text = raw;
    if (line == 1 && text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    text = trimmed(text);
    if (text.empty()) continue;
    const bool header = header_allowed && same_ignoring_case(text, kHeader);
    header_allowed = false;
    if (!header) arrivals.push_back(parse_line(text, name, line));
  }
  if (input.bad()) throw RunError(fmt::format("{}: reading failed", name));
  if (arrivals.empty()) throw InputError(fmt::format("{}: no request in it", name));
  std::stable_sort(arrivals.begin(), arrivals.end(),
                   [](const Arrival& a, const Arrival& b) { return a.time < b.time; });
  Trace trace{name, {}};
  for (const Arrival& arrival : arrivals) trace.requests.push_back(arrival.request);
  return trace;
}

Trace read_trace(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(fmt::format("--trace {}: cannot be opened", path));
  return parse_trace(file, path);
}

std::int64_t drop_too_long(Trace& trace, std::int64_t num_pages, std::int64_t page_size, bool skip) {
  const auto too_long = [&](const TraceRequest& request) { return request.final_tokens() > num_pages * page_size; };
  const auto first = std::find_if(trace.requests.begin(), trace.requests.end(), too_long);
  if (first == trace.requests.end()) return 0;
  if (!skip) {
    const std::string where = first->line > 0 ? fmt::format("line {}", first->line)
                                              : fmt::format("request {}", first - trace.requests.begin());
    throw InputError(
        fmt::format("{}: {}: {} context and {} generated tokens need {} pages of {} tokens, and the pool has {}; give "
                    "more --pages, "
                    "or --skip-too-long",
                    trace.source, where, first->context_tokens, first->generated_tokens,
                    (first->final_tokens() + page_size - 1) / page_size, page_size, num_pages));
  }
  const auto dropped = static_cast<std::int64_t>(std::erase_if(trace.requests, too_long));
  if (trace.requests.empty()) {
    throw InputError(fmt::format("{}: every request is longer than the pool of {} pages of {} tokens", trace.source,
                                 num_pages, page_size));
  }
  return dropped;
}

}  // namespace flash_mla::tools
