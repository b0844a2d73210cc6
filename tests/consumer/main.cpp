// Uses the installed library as an engine would: plan, schedule, decode on the CPU. With q = 0 every token weighs the
// same, so out is the mean of the cached latents and lse = ln(length).
#include <flash_mla/flash_mla.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

using flash_mla::DType;
using flash_mla::TensorView;

int fail(const char* what) {
  std::fprintf(stderr, "consumer: %s\n", what);
  return 1;
}

}  // namespace

int main() {
  constexpr int kPages = 3, kPageSize = 64, kHeads = 4, kLength = 100;

  const std::string version = std::to_string(FLASH_MLA_VERSION_MAJOR) + "." + std::to_string(FLASH_MLA_VERSION_MINOR) +
                              "." + std::to_string(FLASH_MLA_VERSION_PATCH);
  if (version != flash_mla::version()) return fail("headers and library differ in version");

  auto plan = flash_mla::plan({.dtype = DType::f32, .max_batch = 1, .num_heads_q = kHeads, .page_size = kPageSize});
  if (!plan.ok()) return fail(plan.status().message());

  // Token t of the request holds the value t in every column; its pages are 2 and 0.
  std::vector<float> cache(kPages * kPageSize * flash_mla::kHeadDim, NAN), q(kHeads * flash_mla::kHeadDim, 0.f);
  std::vector<float> out(kHeads * flash_mla::kLatentDim), lse(kHeads);
  std::vector<std::int32_t> table = {2, 0}, lengths = {kLength};
  for (int t = 0; t < kLength; ++t) {
    float* token = &cache[(table[t / kPageSize] * kPageSize + t % kPageSize) * flash_mla::kHeadDim];
    for (int column = 0; column < flash_mla::kHeadDim; ++column) token[column] = static_cast<float>(t);
  }

  alignas(128) static std::byte dummy[128];  // memories of size 0 still want an address
  std::vector<std::byte> schedule_memory(plan->schedule_bytes() + 128), scratch(plan->scratch_bytes() + 128);
  auto aligned = [](std::vector<std::byte>& memory, std::int64_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return flash_mla::MemoryView{bytes ? memory.data() + (128 - address % 128) % 128 : dummy, bytes};
  };
  const auto schedule_view = aligned(schedule_memory, plan->schedule_bytes());
  const auto scratch_view = aligned(scratch, plan->scratch_bytes());

  const auto seqlens = TensorView::contiguous(lengths.data(), DType::i32, {1});
  auto status = flash_mla::schedule(*plan, {.cache_seqlens = seqlens}, schedule_view);
  if (!status.ok()) return fail(status.message());

  flash_mla::DecodeArgs args;
  args.q = TensorView::contiguous(q.data(), DType::f32, {1, 1, kHeads, flash_mla::kHeadDim});
  args.kv_cache = TensorView::contiguous(cache.data(), DType::f32, {kPages, kPageSize, 1, flash_mla::kHeadDim});
  args.block_table = TensorView::contiguous(table.data(), DType::i32, {1, 2});
  args.cache_seqlens = seqlens;
  args.out = TensorView::contiguous(out.data(), DType::f32, {1, 1, kHeads, flash_mla::kLatentDim});
  args.lse = TensorView::contiguous(lse.data(), DType::f32, {1, kHeads, 1});
  args.softmax_scale = 1.f / std::sqrt(192.f);
  status = flash_mla::decode(*plan, args, schedule_view, scratch_view);
  if (!status.ok()) return fail(status.message());

  for (float value : out) {
    if (!(std::abs(value - (kLength - 1) / 2.f) < 1e-3f)) return fail("out is not the mean of the tokens");
  }
  for (float value : lse) {
    if (!(std::abs(value - std::log(float{kLength})) < 1e-4f)) return fail("lse is not ln(length)");
  }

  // A mistake comes back as a status that names the argument.
  args.out.dtype = DType::bf16;
  status = flash_mla::decode(*plan, args, schedule_view, scratch_view);
  if (status.ok() || std::strstr(status.message(), "out") == nullptr) return fail("a wrong dtype was not refused");

  std::printf("consumer: FlashMLA %s decoded on the CPU\n", flash_mla::version());
  return 0;
}
