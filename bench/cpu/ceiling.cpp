#include "cpu/ceiling.h"

#include <omp.h>

#include <bit>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "flash_mla/plan.h"

namespace flash_mla::bench {
namespace {

using dnnl::memory;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

void fill_random(memory& operand, memory::data_type type) {
  std::uint32_t state = 12345;
  const auto next = [&] {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
  };
  const std::size_t bytes = operand.get_desc().get_size();
  char* data = static_cast<char*>(operand.get_data_handle());
  for (std::size_t at = 0; at < bytes; at += type == memory::data_type::f32 ? 4 : 2) {
    const auto bits = std::bit_cast<std::uint32_t>(next());
    if (type == memory::data_type::f32) {
      std::memcpy(data + at, &bits, 4);
    } else {
      const auto high = static_cast<std::uint16_t>(bits >> 16);
      std::memcpy(data + at, &high, 2);
    }
  }
}

}  // namespace

// One product in one set-up: m x k times k x n.
struct CeilingBench::Setup {
  bool scores;
  memory::data_type type;
  const char* name;
  int m, k, n;
  bool transposed_a;  // a's columns are contiguous
  bool packed;        // b in the layout that oneDNN asks for, else row-major (or column-major if transposed_b)
  bool transposed_b;
  bool accumulate;

  dnnl::matmul product;
  struct Operands {
    memory a, b, c, scratch;
  };
  std::vector<Operands> operands;  // of each thread

  bool prepare() {
    const memory::dims row_major_a{k, 1}, column_major_a{1, m}, row_major_b{n, 1}, column_major_b{1, k};
    const memory::desc a({m, k}, type, transposed_a ? column_major_a : row_major_a);
    const memory::desc b = packed ? memory::desc({k, n}, type, memory::format_tag::any)
                                  : memory::desc({k, n}, type, transposed_b ? column_major_b : row_major_b);
    const memory::desc c({m, n}, memory::data_type::f32, memory::dims{n, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (accumulate) {
      dnnl::post_ops add;
      add.append_sum(1.0f);
      attributes.set_post_ops(add);
    }
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    try {
      const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), attributes, engine());
      if (std::strstr(description.impl_info_str(), "ref")) throw dnnl::error(dnnl_unimplemented, "reference only");
      product = dnnl::matmul(description);
      for (int i = 0; i < threads; ++i) {
        operands.push_back({memory(a, engine()), memory(description.weights_desc(), engine()), memory(c, engine()),
                            memory(description.scratchpad_desc(), engine())});
        fill_random(operands.back().a, type);
        fill_random(operands.back().b, type);
        fill_random(operands.back().c, memory::data_type::f32);
      }
    } catch (const dnnl::error&) {
      operands.clear();
    }
    omp_set_num_threads(threads);
    return !operands.empty();
  }

  // Sum over threads of each thread's rate.
  double gflops(double seconds) {
    double total = 0;
#pragma omp parallel num_threads(static_cast <int>(operands.size())) reduction(+ : total)
    {
      Operands& mine = operands[omp_get_thread_num()];
      dnnl::stream stream(engine());
      const std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, mine.a},
                                                      {DNNL_ARG_WEIGHTS, mine.b},
                                                      {DNNL_ARG_DST, mine.c},
                                                      {DNNL_ARG_SCRATCHPAD, mine.scratch}};
      product.execute(stream, arguments);
#pragma omp barrier
      const Clock::time_point start = Clock::now();
      std::int64_t calls = 0;
      do {
        for (int i = 0; i < 16; ++i) product.execute(stream, arguments);
        calls += 16;
      } while (seconds_since(start) < seconds);
      total += 2.0 * m * k * n * static_cast<double>(calls) / seconds_since(start) * 1e-9;
    }
    return total;
  }
};

CeilingBench::CeilingBench(int rows) : rows_(rows) {
  const auto add = [&](Setup setup) {
    if (setup.prepare()) setups_.push_back(std::move(setup));
  };
  for (const memory::data_type type : {memory::data_type::bf16, memory::data_type::f32}) {
    for (const bool packed : {true, false}) {
      const auto product = [&](bool scores, const char* name, int m, int k, int n, bool ta, bool tb, bool accumulate) {
        add({scores, type, name, m, k, n, ta, packed, tb, accumulate, {}, {}});
      };
      product(true, packed ? "q x packed k" : "q x k", rows, kHeadDim, kBlockTokens, false, true, false);
      product(true, packed ? "k x packed q" : "k x q", kBlockTokens, kHeadDim, rows, false, true, false);
      product(false, packed ? "p x packed v" : "p x v", rows, kBlockTokens, kLatentDim, false, false, false);
      product(false, packed ? "p x packed v, added" : "p x v, added", rows, kBlockTokens, kLatentDim, false, false,
              true);
      product(false, packed ? "v x packed p" : "v x p", kLatentDim, kBlockTokens, rows, true, false, false);
    }
  }
}

CeilingBench::~CeilingBench() = default;

std::vector<Ceiling> CeilingBench::measure(double seconds_per_setup) {
  std::vector<Ceiling> ceilings;
  for (const memory::data_type type : {memory::data_type::bf16, memory::data_type::f32}) {
    Ceiling ceiling{type == memory::data_type::f32 ? "f32" : "bf16", rows_, {}, {}, 0};
    for (Setup& setup : setups_) {
      if (setup.type != type) continue;
      const double rate = setup.gflops(seconds_per_setup);
      TileRate& best = setup.scores ? ceiling.scores : ceiling.values;
      if (rate > best.gflops) best = {setup.name, rate};
    }
    if (ceiling.scores.gflops == 0 || ceiling.values.gflops == 0) continue;
    const double time = kHeadDim / ceiling.scores.gflops + kLatentDim / ceiling.values.gflops;
    ceiling.gflops = (kHeadDim + kLatentDim) / time;
    ceilings.push_back(ceiling);
  }
  return ceilings;
}

}  // namespace flash_mla::bench
