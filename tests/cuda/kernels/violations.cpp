// Every rule of CUDA that the simulator checks, broken once: each launch must fail with the message that names it.
// Prints a line per rule that went unnoticed; exit code 0: none.
#include <cstdio>
#include <stdexcept>
#include <string>

#include "compiler.h"

namespace {

int n_unnoticed = 0;

template <class... Parameters, class... Arguments>
void expect_error(const char* expected, unsigned blocks, unsigned threads, void (*kernel)(Parameters...),
                  Arguments... arguments) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    simulator::options() = {seed, 2, 0.1};
    std::string error = "no error";
    try {
      BDTORCH_LAUNCH(kernel, blocks, threads, nullptr, arguments...);
    } catch (const std::runtime_error& exception) {
      error = exception.what();
    }
    if (error.find(expected) != std::string::npos) continue;
    ++n_unnoticed;
    std::printf("expected \"%s\", got \"%s\" (seed %d)\n", expected, error.c_str(), int(seed));
  }
}

__global__ void nothing(int) {}

__global__ void divergent_barriers(int) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void return_before_a_barrier(int) {
  if (threadIdx.x == 40) return;
  __syncthreads();
}

__global__ void return_before_a_collective(int) {
  if (threadIdx.x == 3) return;
  __syncwarp();
}

__global__ void wait_for_each_other(int) {
  if (threadIdx.x == 0)
    __syncwarp();
  else
    __syncthreads();
}

__global__ void mask_without_the_caller(int) { __ballot_sync(~(1u << (threadIdx.x % 32)), true); }

__global__ void different_collectives(int value) {
  if (threadIdx.x % 32 < 16)
    __ballot_sync(0xffffffffu, true);
  else
    __shfl_sync(0xffffffffu, value, 0);
}

__global__ void shuffle_from_outside_the_mask(int value) {
  if (threadIdx.x == 0) __shfl_sync(1u, value, 5);
}

__global__ void too_much_shared_memory(int value) {
  BDTORCH_SHARED(double, large, 7000);
  large[threadIdx.x] = value;
}

}  // namespace

int main() {
  expect_error("empty grid or block", 0, 32, nothing, 0);
  expect_error("empty grid or block", 1, 0, nothing, 0);
  expect_error("beyond the limits", 1, 1025, nothing, 0);
  expect_error("divergent barriers", 1, 64, divergent_barriers, 0);
  expect_error("returned", 1, 64, return_before_a_barrier, 0);
  expect_error("returned", 1, 64, return_before_a_collective, 0);
  expect_error("deadlock", 1, 64, wait_for_each_other, 0);
  expect_error("not in its mask", 1, 64, mask_without_the_caller, 0);
  expect_error("mismatched warp collectives", 1, 64, different_collectives, 0);
  expect_error("reads lane 5, which is not in its mask", 1, 64, shuffle_from_outside_the_mask, 0);
  expect_error("more than 48 KiB", 3, 64, too_much_shared_memory, 0);
  std::printf("%d violations went unnoticed\n", n_unnoticed);
  return n_unnoticed != 0;
}
