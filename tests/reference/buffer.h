// Memory of exactly so many bytes on the heap, so that AddressSanitizer sees the first byte past it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include "flash_mla/types.h"

namespace flash_mla::reference {

class Buffer {
 public:
  static constexpr std::size_t kAlignment = 128;

  Buffer(std::string name, std::int64_t bytes);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::byte* data() const { return data_.get(); }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  [[nodiscard]] MemoryView memory() const { return {data_.get(), bytes_, {}}; }
  void fill_random(std::uint64_t seed);
  [[nodiscard]] std::uint64_t hash() const;  // of the content

 private:
  struct Free {
    void operator()(std::byte* data) const { ::operator delete[](data, std::align_val_t(kAlignment)); }
  };
  std::string name_;
  std::unique_ptr<std::byte[], Free> data_;
  std::int64_t bytes_;
};

}  // namespace flash_mla::reference
