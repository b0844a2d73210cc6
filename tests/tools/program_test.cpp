// The program as its user meets it: output, files and exit codes.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "replay/replay.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {

struct Outcome {
  int code = -1;
  std::string text;  // both streams
};

// stderr goes where stdout goes; `only_stdout` drops it.
Outcome run(const std::string& arguments, bool only_stdout = false) {
  const std::string command =
      std::string(FLASH_MLA_PROGRAM) + " " + arguments + (only_stdout ? " 2>/dev/null" : " 2>&1");
  Outcome outcome;
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) outcome.text.append(buffer, n);
  const int status = pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class Program : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "flash_mla_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
    return folder_ + "/" + name;
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_;
};

// 200 requests as a service would log them, small enough for seconds of CPU time.
std::string small_trace(std::int64_t n) {
  std::string text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n";
  Random random(11);
  for (std::int64_t i = 0; i < n; ++i) {
    text += std::to_string(i) + "," + std::to_string(random.below(200)) + "," + std::to_string(1 + random.below(30)) +
            "\r\n";
  }
  return text;
}

TEST_F(Program, HelpIsThereForEveryCommand) {
  EXPECT_EQ(run("--help").code, 0);
  for (const char* command : {"info", "check", "bench", "replay"}) {
    const Outcome outcome = run(std::string(command) + " --help");
    EXPECT_EQ(outcome.code, 0);
    EXPECT_TRUE(contains(outcome.text, "--backend")) << outcome.text;
    EXPECT_TRUE(contains(outcome.text, "--json")) << outcome.text;
  }
  EXPECT_TRUE(contains(run("--version").text, "."));
}

TEST_F(Program, WrongFlagsAreNamedAndExitWith2) {
  for (const char* flags : {"",
                            "serve",
                            "replay --frobnicate",
                            "replay --heads many",
                            "replay --heads 0",
                            "replay --heads -3",
                            "replay --steps 0",
                            "replay --seconds -1",
                            "replay --seconds nan",
                            "bench --budget inf",
                            "bench --max-memory 0",
                            "replay --dtype fp8",
                            "replay --backend tpu",
                            "replay --trace x --num-requests 4",
                            "bench --heads 16 --rows x.json",
                            "bench --batch 0",
                            "check --rows 0",
                            "info --page-size 17",
                            "replay --page-size 17",
                            "replay --pages 10 --num-requests 100",
                            "replay --trace /nowhere/x.csv",
                            "bench --rows /nowhere/x.json"}) {
    const Outcome outcome = run(flags);
    EXPECT_EQ(outcome.code, 2) << flags << ": " << outcome.text;
    EXPECT_FALSE(outcome.text.empty()) << flags;
  }
  EXPECT_TRUE(contains(run("replay --frobnicate").text, "--frobnicate"));
  EXPECT_TRUE(contains(run("replay --heads many").text, "many"));
  EXPECT_TRUE(contains(run("replay --page-size 17").text, "17"));
}

TEST_F(Program, InfoSaysWhatWouldRun) {
  const Outcome outcome = run("info --backend cpu --heads 16 --batch 3");
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  for (const char* part : {"cpu: available", "kernel: ", "What would run for 3 requests, 16 heads", "scratch"}) {
    EXPECT_TRUE(contains(outcome.text, part)) << outcome.text;
  }
  const auto json = nlohmann::json::parse(run("info --backend cpu --json -").text);
  EXPECT_EQ(json["would_run"]["backend"], "cpu");
  EXPECT_GE(json["would_run"]["parts"], 1);
}

TEST_F(Program, CheckPassesOnTheCpu) {
  const Outcome outcome = run("check --quick --backend cpu --rows 4 --json " + path("check.json"));
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_TRUE(contains(outcome.text, ", 0 wrong, 0 skipped")) << outcome.text;
  const auto json = nlohmann::json::parse(read_file(path("check.json")));
  EXPECT_EQ(json["wrong"], 0);
  EXPECT_GE(json["shapes"].size(), 30u);
}

TEST_F(Program, BenchTimesRowsOfAFileAndSkipsWithALine) {
  const std::string rows = write("rows.json", R"({"rows": [
      {"b": 2, "s_q": 1, "h": 16, "s_k": 128, "lens": "uniform", "regime": "latency"},
      {"b": 3, "s_q": 2, "h": 4, "s_k": 0, "lens": "conv", "seqlens": [100, 0, 65]},
      {"b": 512, "s_q": 1, "h": 16, "s_k": 131072, "lens": "uniform"}]})");
  const Outcome outcome =
      run("bench --backend cpu --budget 0.02 --max-memory 0.05 --rows " + rows + " --json " + path("out.json"));
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_TRUE(contains(outcome.text, "skipped: its cache takes")) << outcome.text;
  const auto json = nlohmann::json::parse(read_file(path("out.json")));
  ASSERT_EQ(json["rows"].size(), 3u);
  EXPECT_GT(json["rows"][0]["us"], 0);
  EXPECT_EQ(json["rows"][0]["regime"], "latency");
  EXPECT_EQ(json["rows"][0]["cold"], false);  // 50 MiB are not enough to be cold
  EXPECT_GE(json["rows"][0]["calls"], 3);
  EXPECT_EQ(json["rows"][1]["seqlens"], nlohmann::json({100, 0, 65}));
  EXPECT_TRUE(json["rows"][2].contains("skipped"));
  EXPECT_FALSE(json["rows"][2].contains("us"));
}

TEST_F(Program, BenchSkipsSlowRowsAndWritesJsonToStandardOutput) {
  const Outcome outcome =
      run("bench --backend cpu --batch 4 --heads 16 --seqlen-k 64,4096 --budget 0.01 --max-memory 0.1 "
          "--max-seconds 0.000001 --json -",
          true);
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  const auto json = nlohmann::json::parse(outcome.text);
  EXPECT_TRUE(contains(json["rows"][1]["skipped"], "one call would take about"));
}

TEST_F(Program, ReplayServesATraceToItsEndThroughPreemptions) {
  const std::string trace = write("trace.csv", small_trace(200));
  const Outcome outcome =
      run("replay --backend cpu --seconds 0 --heads 4 --layers 2 --pages 24 --page-size 16 --verify 100 "
          "--trace " +
          trace + " --json " + path("r.json") + " --html " + path("r.html"));
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_TRUE(contains(outcome.text, "agree with the fp64 reference")) << outcome.text;
  const auto json = nlohmann::json::parse(read_file(path("r.json")));
  EXPECT_EQ(json["requests"]["finished"], 200);
  EXPECT_EQ(json["requests"]["waiting"], 0);
  EXPECT_GT(json["requests"]["preemptions"], 0);
  EXPECT_EQ(json["requests"]["resumptions"], json["requests"]["preemptions"]);
  EXPECT_EQ(json["verify"]["rows"], 100);
  EXPECT_EQ(json["stopped_by"], "every request was served");
  EXPECT_TRUE(contains(read_file(path("r.html")), "<svg"));
}

TEST_F(Program, ReplayStopsAfterStepsOrSeconds) {
  const auto steps =
      nlohmann::json::parse(run("replay --backend cpu --steps 3 --heads 2 --pages 512 --json -", true).text);
  EXPECT_EQ(steps["per_step"]["steps"], 3);
  EXPECT_GT(steps["requests"]["waiting"], 0);
  EXPECT_GT(steps["cost"]["padded_latent"]["peak_bytes"], steps["cost"]["paged_latent"]["peak_bytes"]);
  const auto seconds =
      nlohmann::json::parse(run("replay --backend cpu --seconds 0.2 --heads 2 --pages 512 --json -", true).text);
  EXPECT_GE(seconds["seconds"]["wall"], 0.2);
  EXPECT_LT(seconds["seconds"]["wall"], 30);
}

TEST_F(Program, ReplayIsTheSameForTheSameSeed) {
  const std::string flags = "replay --backend cpu --steps 40 --heads 2 --pages 256 --max-batch 20 --json - --seed ";
  const auto a = nlohmann::json::parse(run(flags + "4", true).text),
             b = nlohmann::json::parse(run(flags + "4", true).text),
             c = nlohmann::json::parse(run(flags + "5", true).text);
  EXPECT_EQ(a["requests"], b["requests"]);
  EXPECT_EQ(a["tokens"]["context"], b["tokens"]["context"]);
  EXPECT_NE(a["tokens"]["context"], c["tokens"]["context"]);
}

TEST_F(Program, MalformedTracesAreNamedWithTheirLine) {
  const std::string trace = write("bad.csv", small_trace(3) + "2023-11-16 18:15:47,ten,5\r\n");
  const Outcome outcome = run("replay --trace " + trace);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_TRUE(contains(outcome.text, "bad.csv: line 5: ContextTokens is no integer: \"2023-11-16 18:15:47,ten,5\""))
      << outcome.text;
}

TEST_F(Program, RequestsLongerThanThePoolNeedAFlag) {
  const std::string trace = write("long.csv", small_trace(20) + "99,100000,5\n");
  const std::string flags = "replay --backend cpu --heads 1 --pages 40 --seconds 0 --trace " + trace;
  const Outcome refused = run(flags);
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(contains(refused.text, "line 22")) << refused.text;
  const Outcome skipped = run(flags + " --skip-too-long");
  EXPECT_EQ(skipped.code, 0) << skipped.text;
  EXPECT_TRUE(contains(skipped.text, "1 requests longer than the pool")) << skipped.text;
}

TEST_F(Program, FilesThatCannotBeWrittenAreErrors) {
  const Outcome outcome = run("replay --backend cpu --steps 1 --heads 1 --pages 512 --html /nowhere/page.html");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_TRUE(contains(outcome.text, "/nowhere/page.html")) << outcome.text;
}

// In the process itself, where the counts of the engine can be seen whole.
TEST_F(Program, ServeGivesEveryRequestItsTokens) {
  ReplayOptions options;
  options.backend = "cpu";
  options.trace_path = write("trace.csv", small_trace(200));
  options.heads = 3, options.pages = 20, options.page_size = 16, options.max_batch = 16, options.seconds = 0;
  options.verify = 300, options.dtype = "f16";
  const ReplayResult result = serve(options);
  std::int64_t wanted = 0;
  for (const TraceRequest& request : load_trace(options).requests) wanted += request.generated_tokens;
  EXPECT_EQ(result.counts.generated_tokens, wanted);
  EXPECT_EQ(result.counts.finished, 200);
  EXPECT_GT(result.counts.preemptions, 0);
  ASSERT_TRUE(result.verify.has_value());
  EXPECT_EQ(result.verify->rows, 300);
  EXPECT_EQ(result.verify->wrong, 0) << result.verify->worst_text;
}

}  // namespace
}  // namespace flash_mla::tools
