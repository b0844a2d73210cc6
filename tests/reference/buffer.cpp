// See buffer.h.
#include "reference/buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "reference/random.h"

namespace flash_mla::reference {

Buffer::Buffer(std::string name, std::int64_t bytes)
    : name_(std::move(name)),
      data_(static_cast<std::byte*>(::operator new[](static_cast<std::size_t>(bytes), std::align_val_t(kAlignment)))),
      bytes_(bytes) {}

void Buffer::fill_random(std::uint64_t seed) {
  Random random(seed);
  for (std::int64_t at = 0; at < bytes_; at += 8) {
    const std::uint64_t word = random.next();
    std::memcpy(data() + at, &word, static_cast<std::size_t>(std::min<std::int64_t>(8, bytes_ - at)));
  }
}

// FNV-1a, by words.
std::uint64_t Buffer::hash() const {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::int64_t at = 0; at < bytes_; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data() + at, static_cast<std::size_t>(std::min<std::int64_t>(8, bytes_ - at)));
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 32;
  }
  return hash;
}

}  // namespace flash_mla::reference
