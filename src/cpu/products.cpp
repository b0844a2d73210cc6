#include "cpu/products.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include "flash_mla/plan.h"

namespace flash_mla::cpu {
namespace {

using Desc = dnnl::memory::desc;
using DataType = dnnl::memory::data_type;

DataType data_type(ComputeType type) { return type == ComputeType::bf16 ? DataType::bf16 : DataType::f32; }

Desc matrix(std::int64_t rows, std::int64_t columns, DataType type, std::int64_t row_stride,
            std::int64_t column_stride = 1) {
  return Desc({rows, columns}, type, dnnl::memory::dims{row_stride, column_stride});
}

dnnl::matmul::primitive_desc describe(const Desc& a, const Desc& b, const Desc& c, bool accumulate) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulate) {
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attributes.set_post_ops(add);
  }
  return {dnnl::matmul::desc(a, b, c), attributes, cpu_engine()};
}

void make_scores(const ProductShape& shape, TileProducts* made) {
  const DataType type = data_type(shape.type);
  const std::int64_t tokens = shape.blocks * kBlockTokens, rows = shape.rows;
  const Desc any({kHeadDim, rows}, type, dnnl::memory::format_tag::any);
  made->tokens = matrix(tokens, kHeadDim, type, kHeadDim);
  made->scores_out = matrix(tokens, rows, DataType::f32, rows);
  const auto description = describe(made->tokens, any, made->scores_out, false);
  made->scores = dnnl::matmul(description);
  made->scores_scratch = description.scratchpad_desc();
  made->queries = matrix(kHeadDim, rows, type, 1, kHeadDim);
  made->queries_packed = description.weights_desc();

  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  made->pack_queries = dnnl::reorder({cpu_engine(), made->queries, cpu_engine(), made->queries_packed, attributes});
}

void make_values(const ProductShape& shape, TileProducts* made) {
  const DataType type = data_type(shape.type);
  const std::int64_t tokens = shape.blocks * kBlockTokens, rows = shape.rows;
  const Desc any({tokens, kLatentDim}, type, dnnl::memory::format_tag::any);
  const Desc in_tokens = matrix(tokens, kLatentDim, type, kHeadDim);
  made->weights = matrix(rows, tokens, type, 1, rows);
  made->out = matrix(rows, kLatentDim, DataType::f32, kLatentDim);
  made->values_in = in_tokens;
  if (shape.type == ComputeType::bf16) {
    const Desc panels({tokens, kLatentDim}, type, dnnl::memory::format_tag::BA16a64b2a);
    if (describe(made->weights, any, made->out, true).weights_desc() == panels) {
      made->values_in = panels;
      made->values_layout = ValuesLayout::paired_panels;
    }
  }
  const auto description = describe(made->weights, made->values_in, made->out, true);
  made->values = dnnl::matmul(description);
  made->values_scratch = description.scratchpad_desc();
}

std::unique_ptr<const TileProducts> make_products(const ProductShape& shape) {
  const OneThread one_thread;
  auto made = std::make_unique<TileProducts>();
  make_scores(shape, made.get());
  make_values(shape, made.get());
  return made;
}

// Entries are written once and live as long as the process.
struct ProductTable {
  std::mutex mutex;
  std::array<std::atomic<const TileProducts*>, 2 * (kMaxRows / kRowGranule)* kMaxChunkBlocks> entries = {};
};

ProductTable& table() {
  static ProductTable& instance = *new ProductTable;
  return instance;
}

}  // namespace

ComputeType compute_type(DType dtype) {
  if (dtype != DType::bf16) return ComputeType::f32;
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx512_core_bf16:
    case dnnl::cpu_isa::avx512_core_amx:
      return ComputeType::bf16;
    default:
      return ComputeType::f32;
  }
}

const dnnl::engine& cpu_engine() {
  static const dnnl::engine& engine = *new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

std::int64_t TileProducts::packed_queries_bytes() const { return static_cast<std::int64_t>(queries_packed.get_size()); }

std::int64_t TileProducts::scratch_bytes() const {
  return static_cast<std::int64_t>(std::max(scores_scratch.get_size(), values_scratch.get_size()));
}

const TileProducts& tile_products(const ProductShape& shape) {
  const int type = static_cast<int>(shape.type), granules = shape.rows / kRowGranule;
  const int index = (type * (kMaxRows / kRowGranule) + granules - 1) * kMaxChunkBlocks + shape.blocks - 1;
  std::atomic<const TileProducts*>& entry = table().entries[index];
  const TileProducts* products = entry.load(std::memory_order_acquire);
  if (products) return *products;

  const std::lock_guard lock(table().mutex);
  products = entry.load(std::memory_order_relaxed);
  if (!products) {
    products = make_products(shape).release();
    entry.store(products, std::memory_order_release);
  }
  return *products;
}

BoundProducts::BoundProducts(const TileProducts& products, const ProductBuffers& buffers)
    : products_(&products),
      queries_(products.queries, cpu_engine(), buffers.queries),
      queries_packed_(products.queries_packed, cpu_engine(), buffers.queries_packed),
      tokens_(products.tokens, cpu_engine(), buffers.tokens),
      scores_(products.scores_out, cpu_engine(), buffers.scores),
      weights_(products.weights, cpu_engine(), buffers.weights),
      values_(products.values_in, cpu_engine(),
              products.values_layout == ValuesLayout::paired_panels ? buffers.values : buffers.tokens),
      out_(products.out, cpu_engine(), buffers.out),
      scores_scratch_(products.scores_scratch, cpu_engine(), buffers.scratch),
      values_scratch_(products.values_scratch, cpu_engine(), buffers.scratch) {}

namespace {

struct Argument {
  int index;
  const dnnl::memory& memory;
};

// primitive::execute without the containers that it builds on every call.
template <std::size_t n>
void execute(const dnnl::primitive& primitive, const dnnl::stream& stream, const Argument (&arguments)[n]) {
  dnnl_exec_arg_t plain[n];
  for (std::size_t i = 0; i < n; ++i) plain[i] = {arguments[i].index, arguments[i].memory.get()};
  dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive.get(), stream.get(), static_cast<int>(n), plain),
                          "a matrix product failed");
}

}  // namespace

void BoundProducts::pack_queries(dnnl::stream& stream) {
  execute(products_->pack_queries, stream, {{DNNL_ARG_FROM, queries_}, {DNNL_ARG_TO, queries_packed_}});
}

void BoundProducts::scores(dnnl::stream& stream) {
  execute(products_->scores, stream,
          {{DNNL_ARG_SRC, tokens_},
           {DNNL_ARG_WEIGHTS, queries_packed_},
           {DNNL_ARG_DST, scores_},
           {DNNL_ARG_SCRATCHPAD, scores_scratch_}});
}

void BoundProducts::scores(dnnl::stream& stream, void* tokens, float* result) {
  void *const own_tokens = tokens_.get_data_handle(), *const own_scores = scores_.get_data_handle();
  tokens_.set_data_handle(tokens);
  scores_.set_data_handle(result);
  scores(stream);
  tokens_.set_data_handle(own_tokens);
  scores_.set_data_handle(own_scores);
}

void BoundProducts::values(dnnl::stream& stream) {
  execute(products_->values, stream,
          {{DNNL_ARG_SRC, weights_},
           {DNNL_ARG_WEIGHTS, values_},
           {DNNL_ARG_DST, out_},
           {DNNL_ARG_SCRATCHPAD, values_scratch_}});
}

OneThread::OneThread() : threads_before_(omp_get_max_threads()) { omp_set_num_threads(1); }
OneThread::~OneThread() { omp_set_num_threads(threads_before_); }

}  // namespace flash_mla::cpu
