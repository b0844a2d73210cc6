#include "unit/api/calls.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "api/plan.h"

namespace flash_mla::test {

void* Memory::take(std::int64_t n, Device device) {
  if (device.type != DeviceType::cpu) {
    void* address = device_address(next_device_offset_);
    next_device_offset_ += static_cast<std::uintptr_t>(n + 127) / 128 * 128 + 128;
    return address;
  }
  Block& block = blocks_.emplace_back();
  block.size = static_cast<std::size_t>(n);
  block.data.reset(static_cast<std::byte*>(::operator new (block.size, std::align_val_t{128})));
  std::fill_n(block.data.get(), block.size, kPattern);
  return block.data.get();
}

TensorView Memory::tensor(DType dtype, std::initializer_list<std::int64_t> shape, Device device) {
  std::int64_t bytes = size_in_bytes(dtype);
  for (std::int64_t dim : shape) bytes *= dim;
  return TensorView::contiguous(take(bytes, device), dtype, shape, device);
}

MemoryView Memory::bytes(std::int64_t n, Device device) { return {take(n, device), n, device}; }

void Memory::remember() {
  for (Block& block : blocks_) block.copy.assign(block.data.get(), block.data.get() + block.size);
}

bool Memory::unchanged() const {
  return std::all_of(blocks_.begin(), blocks_.end(), [](const Block& block) {
    return block.copy.size() == block.size && std::equal(block.copy.begin(), block.copy.end(), block.data.get());
  });
}

DecodeCall::DecodeCall(Queries queries, Columns columns, Device device) : backend(device.type) {
  const bool ragged = queries == Queries::ragged;
  config = {.device = device, .max_batch = 5, .max_total_q = 9, .max_seqlen_q = 3, .num_heads_q = 4, .num_heads_kv = 2};
  const Result<Plan> made = make_plan(config, backend);
  EXPECT_TRUE(made.ok()) << made.status().message();
  plan = *made;

  const DType dtype = config.dtype;
  const std::int64_t d = columns == Columns::joint ? 576 : 512;
  const auto rows = [&](std::int64_t width) {
    return ragged ? memory.tensor(dtype, {3, 4, width}, device) : memory.tensor(dtype, {3, 2, 4, width}, device);
  };
  args.q = rows(d);
  args.kv_cache = memory.tensor(dtype, {6, 64, 2, d}, device);
  if (columns == Columns::apart) {
    args.q_rope = rows(64);
    args.k_rope_cache = memory.tensor(dtype, {6, 64, 2, 64}, device);
  }
  args.block_table = memory.tensor(DType::i32, {3, 2}, device);
  args.cache_seqlens = memory.tensor(DType::i32, {3}, device);
  if (ragged) args.cu_seqlens_q = memory.tensor(DType::i32, {4}, device);
  args.out = rows(512);
  args.lse = ragged ? memory.tensor(DType::f32, {4, 3}, device) : memory.tensor(DType::f32, {3, 4, 2}, device);
  args.softmax_scale = 0.07f;
  schedule_args = {.cache_seqlens = args.cache_seqlens, .cu_seqlens_q = args.cu_seqlens_q, .seqlen_q = ragged ? 0 : 2};
  schedule_memory = memory.bytes(plan.schedule_bytes(), device);
  scratch = memory.bytes(plan.scratch_bytes(), device);
  if (device.type != DeviceType::cpu) return;

  std::ranges::copy(std::vector<std::int32_t>{100, 0, 65}, lengths());
  std::ranges::copy(std::vector<std::int32_t>{5, 0, -1, 1 << 30, 2, 3}, table());
  if (ragged) std::ranges::copy(std::vector<std::int32_t>{0, 2, 2, 3}, cu());
}

Status DecodeCall::schedule() {
  const Status status = flash_mla::schedule(plan, schedule_args, schedule_memory);
  backend.calls = 0;
  memory.remember();
  return status;
}

void expect_refused(const Status& status, const std::vector<std::string>& says) {
  EXPECT_EQ(status.code(), StatusCode::invalid_argument) << status.message();
  for (const std::string& text : says)
    EXPECT_NE(std::string(status.message()).find(text), std::string::npos)
        << text << " is not in: " << status.message();
  EXPECT_LT(std::strlen(status.message()), 240u) << "nearly cut off: " << status.message();
}

}  // namespace flash_mla::test
