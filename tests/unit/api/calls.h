// Valid calls to break: each owns its memory, whose outputs carry a pattern that a refused call must leave.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "flash_mla/flash_mla.h"
#include "unit/api/fake_backend.h"

namespace flash_mla::test {

enum class Queries { uniform, ragged };
enum class Columns { joint, apart };

// Exactly sized memory on the heap, aligned to 128 bytes. As CUDA memory it is an address that cannot be read.
class Memory {
 public:
  static constexpr std::byte kPattern{0xa5};

  TensorView tensor(DType dtype, std::initializer_list<std::int64_t> shape, Device device);
  MemoryView bytes(std::int64_t n, Device device);
  // Of what tensor() and bytes() returned on the CPU, since the last call of remember().
  void remember();
  bool unchanged() const;

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{128}); }
  };
  struct Block {
    std::unique_ptr<std::byte, Free> data;
    std::size_t size = 0;
    std::vector<std::byte> copy;
  };
  void* take(std::int64_t n, Device device);

  std::deque<Block> blocks_;
  std::uintptr_t next_device_offset_ = 0;
};

// Three requests: lengths 100, 0, 65; query tokens 2 each or (ragged) 2, 0, 1; page size 64; 4 query heads on 2 kv
// heads.
struct DecodeCall {
  explicit DecodeCall(Queries queries = Queries::uniform, Columns columns = Columns::joint, Device device = {});

  Status schedule();
  Status decode() const { return flash_mla::decode(plan, args, schedule_memory, scratch); }

  FakeBackend backend;
  Memory memory;
  PlanConfig config;
  Plan plan;
  ScheduleArgs schedule_args;
  DecodeArgs args;
  MemoryView schedule_memory;
  MemoryView scratch;

  // On the CPU only.
  std::int32_t* lengths() const { return static_cast<std::int32_t*>(args.cache_seqlens.data); }
  std::int32_t* cu() const { return static_cast<std::int32_t*>(args.cu_seqlens_q.data); }
  std::int32_t* table() const { return static_cast<std::int32_t*>(args.block_table.data); }
};

// One way to break a call and what the message must contain: the argument's name and its value.
template <class Call>
struct Broken {
  const char* name;
  std::function<void(Call&)> apply;
  std::vector<std::string> says;
};

// An invalid_argument whose message contains all of `says`.
void expect_refused(const Status& status, const std::vector<std::string>& says);

}  // namespace flash_mla::test
