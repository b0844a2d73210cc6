// Measures the chip's ceilings (see roofline_kernels.cuh) and prints them as JSON under the names that
// bench/peers/*.json uses. Usage: roofline [--full] ; --full adds the variants that no floor is computed from.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "roofline_kernels.cuh"

namespace {

constexpr long kBufferBytes = 6L << 30;
constexpr long kL2Bytes = 16L << 20;  // a working set that stays in L2
constexpr int kHbmPages = 80000, kL2Pages = 200, kL2Loops = 200;

struct Chip {
  int sms = 0;
  char* buffer = nullptr;  // kBufferBytes of random bf16
  uint32_t* random = nullptr;
  float* sink = nullptr;
};

template <class K>
void launch(K kernel, int grid, int block, int smem, int cluster, void** args) {
  CK(cudaFuncSetAttribute((const void*)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem));
  cudaLaunchConfig_t config = {};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = smem;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute, config.numAttrs = 1;
  CK(cudaLaunchKernelExC(&config, (const void*)kernel, args));
}

template <class F>
double mean_milliseconds(F run, int repetitions) {
  cudaEvent_t begin, end;
  CK(cudaEventCreate(&begin));
  CK(cudaEventCreate(&end));
  run();
  CK(cudaDeviceSynchronize());
  CK(cudaEventRecord(begin));
  for (int i = 0; i < repetitions; ++i) run();
  CK(cudaEventRecord(end));
  CK(cudaEventSynchronize(end));
  float ms = 0;
  CK(cudaEventElapsedTime(&ms, begin, end));
  CK(cudaEventDestroy(begin));
  CK(cudaEventDestroy(end));
  return ms / repetitions;
}

Chip open_chip() {
  Chip chip;
  cudaDeviceProp properties;
  CK(cudaGetDeviceProperties(&properties, 0));
  chip.sms = properties.multiProcessorCount;
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 0.3f);
  std::vector<__nv_bfloat16> host(240000);
  for (auto& x : host) x = __float2bfloat16(normal(generator));
  const long bytes = host.size() * sizeof host[0];
  CK(cudaMalloc(&chip.random, bytes));
  CK(cudaMemcpy(chip.random, host.data(), bytes, cudaMemcpyHostToDevice));
  CK(cudaMalloc(&chip.sink, 4096));
  CK(cudaMalloc(&chip.buffer, kBufferBytes));
  const long piece = 400000;
  for (long at = 0; at + piece <= kBufferBytes; at += piece)
    CK(cudaMemcpyAsync(chip.buffer + at, chip.random, piece, cudaMemcpyDeviceToDevice));
  CK(cudaDeviceSynchronize());
  return chip;
}

// GB/s that arrive in shared memory, summed over the CTAs. cluster 2: a pair reads the same pages.
double page_read_gbps(const Chip& chip, int num_pages, bool shuffled, int cluster, int multicast, int loops) {
  std::mt19937 generator(1);
  std::vector<int> order(num_pages), pages;
  for (int i = 0; i < num_pages; ++i) order[i] = i;
  if (shuffled) std::shuffle(order.begin(), order.end(), generator);
  for (int i = 0; i < loops; ++i) pages.insert(pages.end(), order.begin(), order.end());
  int* device_pages = nullptr;
  CK(cudaMalloc(&device_pages, pages.size() * sizeof(int)));
  CK(cudaMemcpy(device_pages, pages.data(), pages.size() * sizeof(int), cudaMemcpyHostToDevice));
  const char* base = chip.buffer;
  int count = static_cast<int>(pages.size());
  void* args[] = {&base, &device_pages, &count, &cluster, &multicast};
  const double ms = mean_milliseconds([&] { launch(ring, chip.sms, 32, NST * CHUNK, cluster, args); }, 10);
  CK(cudaFree(device_pages));
  return static_cast<double>(count) * PAGE * cluster / ms / 1e6;
}

template <class K>
double mix_tflops(const Chip& chip, K kernel, int cluster, long bytes) {
  int iterations = 4000;
  const char* base = chip.buffer;
  void* args[] = {&base, &bytes, &iterations, const_cast<float**>(&chip.sink), const_cast<uint32_t**>(&chip.random)};
  const double ms = mean_milliseconds([&] { launch(kernel, chip.sms, 384, PAGE * 3 + CHUNK, cluster, args); }, 60);
  return static_cast<double>(chip.sms) * iterations * 2 * (2.0 * 64 * 64 * (576 + 512)) / ms / 1e9;
}

template <class K>
double shape_tflops(const Chip& chip, K kernel, int n) {
  int iterations = 20000;
  void* args[] = {&iterations, const_cast<float**>(&chip.sink), const_cast<uint32_t**>(&chip.random)};
  const double ms = mean_milliseconds([&] { launch(kernel, chip.sms, 256, 200000, 1, args); }, 40);
  return static_cast<double>(chip.sms) * iterations * 2 * 16 * 2.0 * 64 * n * 16 / ms / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const bool full = argc > 1 && std::strcmp(argv[1], "--full") == 0;
  const Chip chip = open_chip();
  std::vector<std::pair<std::string, double>> roof;
  auto add = [&](const char* name, double value) { roof.emplace_back(name, value); };

  add("hbm_paged_read_gbps", page_read_gbps(chip, kHbmPages, true, 1, 0, 1));
  add("hbm_sequential_read_gbps", page_read_gbps(chip, kHbmPages, false, 1, 0, 1));
  add("l2_read_gbps", page_read_gbps(chip, kL2Pages, true, 1, 0, kL2Loops));
  add("mma_mix_own_loads_l2_tflops", mix_tflops(chip, mla_mix<3, 1>, 1, kL2Bytes));
  add("mma_mix_multicast_l2_tflops", mix_tflops(chip, mla_mix<3, 2>, 2, kL2Bytes));
  add("mma_mix_multicast_hbm_tflops", mix_tflops(chip, mla_mix<3, 2>, 2, kBufferBytes));
  add("mma_m64n256_rs_tflops", shape_tflops(chip, rate<256, 1, 0>, 256));
  if (full) {
    add("hbm_pair_same_delivered_gbps", page_read_gbps(chip, kHbmPages, true, 2, 0, 1));
    add("hbm_pair_multicast_delivered_gbps", page_read_gbps(chip, kHbmPages, true, 2, 1, 1));
    add("mma_mix_no_loads_tflops", mix_tflops(chip, mla_mix<3, 0>, 1, kBufferBytes));
    add("mma_mix_own_loads_hbm_tflops", mix_tflops(chip, mla_mix<3, 1>, 1, kBufferBytes));
    add("mma_m64n64_ss_tflops", shape_tflops(chip, rate<64, 0, 0>, 64));
    add("mma_m64n128_rs_tflops", shape_tflops(chip, rate<128, 1, 0>, 128));
  }
  std::printf("{");
  for (std::size_t i = 0; i < roof.size(); ++i)
    std::printf("%s\n  \"%s\": %.0f", i ? "," : "", roof[i].first.c_str(), roof[i].second);
  std::printf("\n}\n");
}
