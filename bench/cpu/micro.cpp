// Micro-benchmarks of the CPU backend's stages around the products: softmax, gathering, pairing of tokens.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

#include "cpu/rows.h"
#include "cpu/softmax.h"
#include "flash_mla/plan.h"

namespace {

using namespace flash_mla;

std::vector<float> random_floats(std::size_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

void softmax(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0)), tokens = 256;
  const std::vector<float> scores = random_floats(static_cast<std::size_t>(rows) * tokens);
  std::vector<std::uint16_t> weights(scores.size());
  std::vector<float> max(rows, -1e30f), sum(rows), factor(rows);
  const std::vector<std::int32_t> visible(rows, tokens);
  for (auto _ : state) {
    const cpu::ScoreChunk chunk{scores.data(), weights.data(), visible.data(), rows, tokens, 0.1f};
    benchmark::DoNotOptimize(cpu::softmax(chunk, cpu::ComputeType::bf16, {max.data(), sum.data(), factor.data()}));
  }
  state.SetItemsProcessed(state.iterations() * rows * tokens);
}
BENCHMARK(softmax)->Arg(16)->Arg(128);

void gather_paired_rows(benchmark::State& state) {
  const bool copy = state.range(0) != 0;
  const std::int64_t tokens = 64;
  const std::vector<std::uint16_t> from(tokens * kHeadDim, 0x3f80);
  std::vector<std::uint16_t> to(tokens * kHeadDim), panels(tokens * kLatentDim);
  const cpu::SourceRows rows{from.data(), from.data() + kLatentDim, kHeadDim, kHeadDim, tokens};
  for (auto _ : state) {
    cpu::gather_paired_rows(rows, copy ? to.data() : nullptr, panels.data(), tokens * cpu::kPanelColumns);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * tokens * kLatentDim * 2);
}
BENCHMARK(gather_paired_rows)->Arg(0)->Arg(1);

void gather_rows_in_fp32(benchmark::State& state) {
  const auto dtype = static_cast<DType>(state.range(0));
  const std::vector<std::uint16_t> from(64 * kHeadDim, 0x3c00);
  std::vector<float> to(from.size());
  const cpu::SourceRows rows{from.data(), from.data() + kLatentDim, kHeadDim, kHeadDim, 64};
  for (auto _ : state) {
    cpu::gather_rows(rows, dtype, cpu::ComputeType::f32, to.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(to.size()));
}
BENCHMARK(gather_rows_in_fp32)->Arg(static_cast<int>(DType::bf16))->Arg(static_cast<int>(DType::f16));

}  // namespace

BENCHMARK_MAIN();
