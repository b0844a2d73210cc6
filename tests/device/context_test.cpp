// Whichever context is current, and whether one is: decode finds the kernel that was loaded for it.
#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "device/device_problem.h"
#include "device/driver.h"

namespace flash_mla::test {
namespace {

// As of CUDA 12.0; later headers declare another one.
using CreateContext = CUresult(CUcontext*, unsigned, CUdevice);

class OwnContext {
 public:
  OwnContext() { call(driver_function<CreateContext>("cuCtxCreate"), "cuCtxCreate", &context_, 0u, CUdevice{0}); }
  ~OwnContext() { EXPECT_EQ(driver_function<decltype(cuCtxDestroy)>("cuCtxDestroy")(context_), CUDA_SUCCESS); }
  OwnContext(const OwnContext&) = delete;
  OwnContext& operator=(const OwnContext&) = delete;

 private:
  CUcontext context_ = nullptr;
};

reference::ProblemSpec spec_of(std::int32_t heads) {
  reference::ProblemSpec spec;
  spec.lengths = {130, 0, 700, 64}, spec.num_heads_q = heads;
  return spec;
}

void expect_right(std::int32_t heads) {
  DeviceProblem problem(spec_of(heads));
  EXPECT_TRUE(problem.runs_right(64));
  EXPECT_TRUE(problem.runs_right(64));
}

class Contexts : public testing::TestWithParam<std::int32_t> {};

TEST_P(Contexts, OfTheCallersOwnBesideTheRuntimes) {
  expect_right(GetParam());
  {
    const OwnContext own;
    expect_right(GetParam());
  }
  expect_right(GetParam());
}

TEST_P(Contexts, NoneInANewThread) {
  DeviceProblem problem(spec_of(GetParam()));
  problem.run();
  problem.synchronize();
  std::thread([&] { problem.run(); }).join();
  EXPECT_TRUE(problem.runs_right(64));
}

INSTANTIATE_TEST_SUITE_P(Heads, Contexts, testing::Values(16, 128));

}  // namespace
}  // namespace flash_mla::test
