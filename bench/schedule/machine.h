// A model of the time that a schedule takes on the GPU, finer than the scheduler's own (schedule/cost.h), to compare
// rules without a GPU. Microseconds.
//
//   time(tile) = fixed + blocks * block + min(blocks - 1, 3) * ramp + (cut ? rows * partial : 0)
//   time(step) = launch + max(max over parts of the sum of time(tile), bytes / bandwidth)
//                + (any cut ? merge + bytes of partials, written and read / merge rate + splits * chain : 0)
//
// The first blocks of a tile take longer: the pipeline fills. Used by schedule_model.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

namespace bench {

struct PartLoad {
  double tiles = 0, blocks = 0, ramp_blocks = 0, cut_tiles = 0;
};

// What the model needs to know of a step.
struct StepLoad {
  int rows = 0;      // of a unit
  double bytes = 0;  // of the cache, queries and results
  std::vector<PartLoad> parts = {};
  int partials = 0, most_splits = 0;
};

enum Constant {
  kLaunch,
  kFixed,
  kBlock32,
  kBlock64,
  kBlock128,
  kBlock256,
  kRamp,
  kPartialRow,
  kMerge,
  kMergeRate,
  kChain,
  kBandwidth,
  kConstants
};

struct Machine {
  // Fitted to bench/results/h100.json (version 5 of docs/performance.md): 4.6 % root mean square.
  std::array<double, kConstants> of = {6.46, 0.76, 3.16, 3.34, 2.0, 1.71, 2.51, 0.0443, 1.05, 5440, 0.039, 2854};

  double block_us(int rows) const {
    return of[rows <= 32 ? kBlock32 : rows <= 64 ? kBlock64 : rows <= 128 ? kBlock128 : kBlock256];
  }

  double part_us(const PartLoad& part, int rows) const {
    return part.tiles * of[kFixed] + part.blocks * block_us(rows) + part.ramp_blocks * of[kRamp] +
           part.cut_tiles * std::min(rows, 64) * of[kPartialRow];
  }

  double merge_us(const StepLoad& load) const {
    if (load.partials == 0) return 0;
    const double bytes = 2.0 * load.partials * load.rows * 512 * 4;
    return of[kMerge] + bytes / (of[kMergeRate] * 1e3) + of[kChain] * load.most_splits;
  }

  double step_us(const StepLoad& load) const {
    double longest = 0;
    for (const PartLoad& part : load.parts) longest = std::max(longest, part_us(part, load.rows));
    return of[kLaunch] + std::max(longest, load.bytes / (of[kBandwidth] * 1e3)) + merge_us(load);
  }
};

}  // namespace bench
