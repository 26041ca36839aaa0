// Host side of a launch: the device and stream of a tensor, the size of a grid, errors. Symbols of libtorch_cpu and of
// the CUDA runtime only (the device-agnostic stream handle), so that the library does not link against libtorch_cuda.
#pragma once
#include <algorithm>
#include <cstdint>

#include "compiler.h"
#include "stable_tensor.h"
#ifndef BDTORCH_SIMULATE_CUDA
#include <torch/csrc/stable/accelerator.h>
#endif

namespace bdtorch::cuda {

constexpr int kWarpSize = 32;

#ifdef BDTORCH_SIMULATE_CUDA

// Small blocks and grids, so that small tests have several blocks and every grid-stride loop takes several strides.
constexpr int kBlockSize = 64;

class CurrentDevice {
 public:
  explicit CurrentDevice(const Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
  int64_t max_blocks() const { return 6; }
};

#else

constexpr int kBlockSize = 256;

// Makes the device of a tensor the current one for the lifetime of the object.
class CurrentDevice {
 public:
  explicit CurrentDevice(const Tensor& tensor) : index_(tensor.get_device_index()), guard_(index_) {}

  cudaStream_t stream() const {
    return static_cast<cudaStream_t>(torch::stable::accelerator::getCurrentStream(index_).nativeHandle());
  }

  // Enough blocks of kBlockSize to fill every multiprocessor; kernels stride over the rest.
  int64_t max_blocks() const {
    int multiprocessors = 1;
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index_);
    return int64_t(multiprocessors) * 8;
  }

 private:
  torch::stable::accelerator::DeviceIndex index_;
  torch::stable::accelerator::DeviceGuard guard_;
};

#endif

// The number of blocks for n_items, of which one block takes items_per_block at a time.
inline unsigned blocks_for(const CurrentDevice& device, int64_t n_items, int64_t items_per_block) {
  const int64_t wanted = (n_items + items_per_block - 1) / items_per_block;
  return unsigned(std::clamp<int64_t>(wanted, 1, device.max_blocks()));
}

// How blocks that own targets share them: ranges of `size`, `n_tasks` in all for a batch.
struct Parts {
  int64_t size, n_tasks;
};

// As many parts as blocks that run at once, since every part goes over all spikes.
inline Parts parts_of_targets(const CurrentDevice& device, int64_t n_batch, int64_t n_post) {
  const int64_t parts = std::max<int64_t>(1, device.max_blocks() / std::max<int64_t>(1, n_batch));
  const int64_t size = std::max<int64_t>(kWarpSize, (n_post + parts - 1) / parts);
  return {size, n_batch * ((n_post + size - 1) / size)};
}

inline void check(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "CUDA error: ", cudaGetErrorString(error));
}

// To call after a launch: reports a configuration that the device refuses. Does not wait for the kernel.
inline void check_launch() { check(cudaGetLastError()); }

// A copy of a contiguous tensor of weights, of at most three dimensions, to be changed in place.
inline Tensor copied(const Tensor& from, cudaStream_t stream) {
  Tensor out = empty_of_shape(from);
  const size_t width = from.scalar_type() == ScalarType::Double ? 8 : from.scalar_type() == ScalarType::Float ? 4 : 2;
  if (from.numel() > 0)
    check(cudaMemcpyAsync(out.mutable_data_ptr(), from.const_data_ptr(), size_t(from.numel()) * width,
                          cudaMemcpyDeviceToDevice, stream));
  return out;
}

}  // namespace bdtorch::cuda
