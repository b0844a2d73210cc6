// Runs the device tests where the CUDA backend can run; elsewhere says why not, in one line, and passes.
#include <gtest/gtest.h>

#include <cstdio>

#include "core/backend.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const flash_mla::BackendInfo info = flash_mla::cuda_backend()->info();
  if (!info.available && !testing::GTEST_FLAG(list_tests)) {
    std::printf("[  SKIPPED ] device tests: %s\n", info.reason);
    return 0;
  }
  return RUN_ALL_TESTS();
}
