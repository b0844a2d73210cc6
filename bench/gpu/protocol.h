// How a time is taken. The card is power limited, so the protocol matters as much as the code:
//   burst      0.4 s of idling, one graph replay that is not counted, then replays for about 20 ms; better of two
//   rounds sustained  0.6 s of replays back to back, the mean of the last third
//   quick      20 ms of idling, one replay that is not counted, then replays for about 4 ms
// One graph holds 16 or more calls that rotate over the workload's cold sets.
#pragma once

#include <cuda_runtime.h>

#include "workload.h"

namespace bench {

class CallGraph {
 public:
  explicit CallGraph(Workload& workload);
  CallGraph(const CallGraph&) = delete;
  CallGraph& operator=(const CallGraph&) = delete;
  ~CallGraph();

  // One round, microseconds a call.
  double burst_round_us();
  double quick_round_us();

  struct Sustained {
    double us = 0;
    double joules = -1;  // a call; negative when unknown
  };
  Sustained sustained();

 private:
  double replay_ms(int replays);
  double round_us(double idle_seconds, double counted_ms);

  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t graph_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  int calls_ = 0;
};

// Host time of a call, microseconds, median over many; the launches are drained in between. By far the most of a decode
// is what any launch takes, which differs from host to host.
struct HostTime {
  double decode_us = 0, empty_launch_us = 0;
};
HostTime host_time(Workload& workload);
// Device time of schedule() alone, microseconds, from a graph of many.
double schedule_us(Workload& workload);

}  // namespace bench
