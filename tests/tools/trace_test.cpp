// The parser of traces, the built-in distribution, and what happens to requests that are longer than the pool.
#include "replay/trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "support/errors.h"

namespace flash_mla::tools {
namespace {

Trace parse(const std::string& text) {
  std::istringstream input(text);
  return parse_trace(input, "trace.csv");
}

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Trace, ReadsHeaderCrlfBlankLinesAndByteOrderMark) {
  const Trace trace = parse(
      "\xef\xbb\xbfTIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "\r\n"
      "2023-11-16 18:15:46.6805900,374,44\r\n"
      "   \n"
      "2023-11-16 18:15:50.9951690, 396 ,109");
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.source, "trace.csv");
  EXPECT_EQ(trace.requests[0].context_tokens, 374);
  EXPECT_EQ(trace.requests[0].generated_tokens, 44);
  EXPECT_EQ(trace.requests[0].line, 3);
  EXPECT_EQ(trace.requests[1].final_tokens(), 396 + 109);
  EXPECT_EQ(trace.requests[1].line, 5);
}

TEST(Trace, NeedsNoHeader) { EXPECT_EQ(parse("0.5,1,2\n").requests.size(), 1u); }

TEST(Trace, TimesGiveTheOrderAndEqualTimesKeepTheFiles) {
  const Trace trace = parse("3,30,1\n1,10,1\n3,31,1\n2.5,20,1\n");
  std::vector<std::int64_t> contexts;
  for (const TraceRequest& request : trace.requests) contexts.push_back(request.context_tokens);
  EXPECT_EQ(contexts, (std::vector<std::int64_t>{10, 20, 30, 31}));
}

TEST(Trace, ReadsDatesWithZones) {
  const Trace trace = parse(
      "2024-05-10 01:00:00.5+02:00,1,1\n"  // 23:00:00.5 the day before
      "2024-05-09T23:00:00Z,2,1\n"
      "2024-05-09 22:00:01-01:00,3,1\n");  // 23:00:01
  EXPECT_EQ(trace.requests[0].context_tokens, 2);
  EXPECT_EQ(trace.requests[1].context_tokens, 1);
  EXPECT_EQ(trace.requests[2].context_tokens, 3);
}

TEST(Trace, MalformedLinesAreNamedWithTheirNumberAndText) {
  const std::string good = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,10,20\n\n";
  struct Case {
    const char* line;
    const char* why;
  };
  const Case cases[] = {
      {"2023-11-16 18:15:47,10", "three fields"},
      {"2023-11-16 18:15:47,10,20,30", "three fields"},
      {"hello", "three fields"},
      {",10,20", "TIMESTAMP"},
      {"2023-13-16 18:15:47,10,20", "TIMESTAMP"},
      {"2023-02-30 18:15:47,10,20", "TIMESTAMP"},
      {"2023-11-16 24:15:47,10,20", "TIMESTAMP"},
      {"2023-11-16 18:15:47+2,10,20", "TIMESTAMP"},
      {"2023-11-16,10,20", "TIMESTAMP"},
      {"nan,10,20", "TIMESTAMP"},
      {"1e999,10,20", "TIMESTAMP"},
      {"2023-11-16 18:15:47,ten,20", "ContextTokens is no integer"},
      {"2023-11-16 18:15:47,,20", "ContextTokens is no integer"},
      {"2023-11-16 18:15:47,1.5,20", "ContextTokens is no integer"},
      {"2023-11-16 18:15:47,10,0x10", "GeneratedTokens is no integer"},
      {"2023-11-16 18:15:47,-1,20", "ContextTokens is -1"},
      {"2023-11-16 18:15:47,10,2147483648", "GeneratedTokens is 2147483648"},
      {"2023-11-16 18:15:47,99999999999999999999,20", "ContextTokens is no integer"},
      {"2023-11-16 18:15:47,2147483647,1", "more than 2147483647 tokens"},
      {"TIMESTAMP,ContextTokens,GeneratedTokens", "TIMESTAMP"},  // a header in the middle
  };
  for (const Case& c : cases) {
    const std::string error = error_of(good + c.line + "\n0,1,1\n");
    EXPECT_NE(error.find("trace.csv: line 4: "), std::string::npos) << c.line << ": " << error;
    EXPECT_NE(error.find(c.why), std::string::npos) << c.line << ": " << error;
    EXPECT_NE(error.find(std::string("\"") + c.line + "\""), std::string::npos) << error;
  }
}

TEST(Trace, EmptyFilesAreErrors) {
  EXPECT_EQ(error_of(""), "trace.csv: no request in it");
  EXPECT_EQ(error_of("TIMESTAMP,ContextTokens,GeneratedTokens\r\n\r\n"), "trace.csv: no request in it");
  EXPECT_THROW(read_trace("/nowhere/trace.csv"), InputError);
}

TEST(Trace, LongLinesAreCutInErrors) { EXPECT_LT(error_of(std::string(100000, 'x')).size(), 300u); }

TEST(Trace, RequestsLongerThanThePoolAreRefusedOrLeftOut) {
  Trace trace = parse("0,100,28\n1,100,29\n2,5,5\n3,4000,1\n");
  Trace same = trace;
  EXPECT_EQ(drop_too_long(same, 1000, 64, false), 0);
  try {
    drop_too_long(trace, 8, 16, false);
    FAIL() << "no error";
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("line 2"), std::string::npos) << text;
    EXPECT_NE(text.find("100 context and 29 generated tokens need 9 pages of 16 tokens, and the pool has 8"),
              std::string::npos)
        << text;
  }
  EXPECT_EQ(drop_too_long(trace, 8, 16, true), 2);
  EXPECT_EQ(trace.requests.size(), 2u);
  EXPECT_THROW(drop_too_long(trace, 0, 16, true), InputError);
}

TEST(BuiltInTrace, HasThePercentilesOfTheService) {
  const std::int64_t n = 50000;
  std::vector<std::int64_t> context;
  double generated = 0;
  for (const TraceRequest& request : built_in_trace(n, 7).requests) {
    context.push_back(request.context_tokens);
    generated += static_cast<double>(request.generated_tokens) / static_cast<double>(n);
    ASSERT_GE(request.generated_tokens, 1);
  }
  std::sort(context.begin(), context.end());
  const auto at = [&](double p) { return static_cast<double>(context[static_cast<std::size_t>(p * double(n))]); };
  EXPECT_NEAR(at(0.50), 1020, 20);
  EXPECT_NEAR(at(0.90), 2734, 200);
  EXPECT_NEAR(at(0.99), 4142, 40);
  EXPECT_NEAR(generated, 211, 5);
}

TEST(BuiltInTrace, IsTheSameForTheSameSeedOnly) {
  const Trace a = built_in_trace(100, 1), b = built_in_trace(200, 1), c = built_in_trace(100, 2);
  int equal = 0;
  for (std::size_t i = 0; i < 100; ++i) {
    EXPECT_EQ(a.requests[i].final_tokens(), b.requests[i].final_tokens());
    equal += a.requests[i].final_tokens() == c.requests[i].final_tokens();
  }
  EXPECT_LT(equal, 10);
  // What every machine must draw.
  EXPECT_EQ(a.requests[0].context_tokens, built_in_trace(1, 1).requests[0].context_tokens);
}

}  // namespace
}  // namespace flash_mla::tools
