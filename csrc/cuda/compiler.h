// The only file that knows which compiler reads the kernels: nvcc, or a host compiler with the test-only simulator,
// which runs every CUDA thread on the CPU.
#pragma once

#ifdef BDTORCH_SIMULATE_CUDA
#include "device.h"  // tests/cuda/simulator

#define BDTORCH_SHARED(T, name, size) SIMULATOR_SHARED(T, name, size)
#define BDTORCH_LAUNCH(kernel, blocks, threads, stream, ...) \
  ((void)(stream), ::simulator::launch_kernel(#kernel, (blocks), (threads), kernel, __VA_ARGS__))

#else
#include <cuda_runtime.h>

// A static array in the shared memory of a block.
#define BDTORCH_SHARED(T, name, size) __shared__ T name[size]
// Queues `kernel`, in parentheses if it is a template instance, on a stream.
#define BDTORCH_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<(blocks), (threads), 0, (stream)>>>(__VA_ARGS__)

#endif
