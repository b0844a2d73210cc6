#include "protocol.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#include "energy.h"

namespace bench {
namespace {

constexpr int kMinCalls = 16;
constexpr double kIdleSeconds = 0.4, kBurstMs = 20, kSustainedMs = 600;
constexpr double kQuickIdleSeconds = 0.02, kQuickMs = 4;

template <class F>
cudaGraphExec_t capture(cudaStream_t stream, F enqueue) {
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  enqueue();
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  return executable;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace

CallGraph::CallGraph(Workload& workload) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  check(cudaEventCreate(&begin_), "cudaEventCreate");
  check(cudaEventCreate(&end_), "cudaEventCreate");
  workload.schedule(stream_);
  workload.decode(0, stream_);
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  const int sets = workload.num_sets();
  calls_ = (kMinCalls + sets - 1) / sets * sets;
  graph_ = capture(stream_, [&] {
    for (int call = 0; call < calls_; ++call) workload.decode(call % sets, stream_);
  });
}

CallGraph::~CallGraph() {
  cudaGraphExecDestroy(graph_);
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
  cudaStreamDestroy(stream_);
}

double CallGraph::replay_ms(int replays) {
  check(cudaEventRecord(begin_, stream_), "cudaEventRecord");
  for (int i = 0; i < replays; ++i) check(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch");
  check(cudaEventRecord(end_, stream_), "cudaEventRecord");
  check(cudaEventSynchronize(end_), "cudaEventSynchronize");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
  return ms;
}

double CallGraph::round_us(double idle_seconds, double counted_ms) {
  const double once_ms = replay_ms(1);
  std::this_thread::sleep_for(std::chrono::duration<double>(idle_seconds));
  replay_ms(1);
  const int replays = std::max(1, static_cast<int>(std::lround(counted_ms / once_ms)));
  return replay_ms(replays) * 1e3 / (replays * calls_);
}

double CallGraph::burst_round_us() { return round_us(kIdleSeconds, kBurstMs); }
double CallGraph::quick_round_us() { return round_us(kQuickIdleSeconds, kQuickMs); }

CallGraph::Sustained CallGraph::sustained() {
  const double once_ms = replay_ms(1);
  const int replays = std::max(3, static_cast<int>(std::lround(kSustainedMs / once_ms)));
  const int warm = replays * 2 / 3;
  const double joules_before = energy_joules();
  for (int i = 0; i < warm; ++i) check(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch");
  Sustained result;
  result.us = replay_ms(replays - warm) * 1e3 / ((replays - warm) * calls_);
  const double joules_after = energy_joules();
  if (joules_before >= 0 && joules_after >= 0) result.joules = (joules_after - joules_before) / (replays * calls_);
  return result;
}

namespace {

// The median of single calls enqueue(call, stream), of bursts on an idle stream.
template <class Enqueue>
double host_us_per_call(cudaStream_t stream, Enqueue enqueue) {
  std::vector<double> samples;
  for (int round = 0; round < 50; ++round) {
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    for (int call = 0; call < 20; ++call) {
      const auto begin = std::chrono::steady_clock::now();
      enqueue(call, stream);
      samples.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
    }
  }
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  return median(samples);
}

}  // namespace

HostTime host_time(Workload& workload) {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  workload.schedule(stream);
  HostTime time;
  time.decode_us =
      host_us_per_call(stream, [&](int call, cudaStream_t on) { workload.decode(call % workload.num_sets(), on); });
  time.empty_launch_us = host_us_per_call(stream, [](int, cudaStream_t on) { launch_nothing(on); });
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  return time;
}

double schedule_us(Workload& workload) {
  constexpr int kCalls = 64, kReplays = 20;
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  workload.schedule(stream);
  cudaGraphExec_t graph = capture(stream, [&] {
    for (int i = 0; i < kCalls; ++i) workload.schedule(stream);
  });
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  check(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
  check(cudaEventRecord(begin, stream), "cudaEventRecord");
  for (int i = 0; i < kReplays; ++i) check(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
  check(cudaEventRecord(end, stream), "cudaEventRecord");
  check(cudaEventSynchronize(end), "cudaEventSynchronize");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(graph);
  cudaStreamDestroy(stream);
  return ms * 1e3 / (kCalls * kReplays);
}

}  // namespace bench
