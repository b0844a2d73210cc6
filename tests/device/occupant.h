// Other work on the GPU: a kernel that keeps multiprocessors to itself, so that few thread blocks of others are there
// at a time.
#pragma once

#include <cuda_runtime_api.h>

namespace flash_mla::test {

// Has so many multiprocessors, from its construction to its end. Their shared memory is taken; a kernel that needs most
// of one finds no room there.
class Occupant {
 public:
  explicit Occupant(int multiprocessors);
  Occupant(const Occupant&) = delete;
  Occupant& operator=(const Occupant&) = delete;
  ~Occupant();

  [[nodiscard]] static int multiprocessors();  // of the GPU

 private:
  cudaStream_t stream_ = nullptr;
  int* words_ = nullptr;  // in the host's memory: thread blocks that have begun; whether they may end
};

}  // namespace flash_mla::test
