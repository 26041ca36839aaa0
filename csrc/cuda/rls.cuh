// CUDA kernels of recursive least squares; see bdtorch/rls.h for the layout of a memory and the formulas.
#pragma once
#include <cstdint>

#include "bdtorch/math.h"
#include "compiler.h"

namespace bdtorch::cuda {

// The memories of a batch, and what is to be done with each of them.
template <class T>
struct RlsBatch {
  T* memory;
  const int64_t* count;
  const bool* learn;  // null: always
  const T* x;
  int64_t n_batch, n, width, block;
  int64_t count_stride, learn_stride;  // 0 or 1
  T forgetting;

  __device__ T* of(int64_t b) const { return memory + b * (n + block + 2) * width; }
  __device__ int64_t pending(int64_t b) const { return count[b * count_stride]; }
  // A number of rows in wait that does not fit leaves the memory as it is: values are not inspected on the host.
  __device__ bool learns(int64_t b) const {
    return (!learn || learn[b * learn_stride]) && pending(b) >= 0 && pending(b) < block;
  }
  __device__ T age(int64_t b) const {
    T product = 1;
    for (int64_t k = 0; k < pending(b); ++k) product *= forgetting;
    return product;
  }
};

template <class T>
__device__ inline T warp_total(T sum) {
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  return sum;
}

// y = P0 x into the first free row h, from the lower triangle. One warp per row.
template <class T>
__global__ void rls_project(RlsBatch<T> batch) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n = batch.n, n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t task = first; task < batch.n_batch * n; task += n_warps) {
    const int64_t b = task / n, i = task % n;
    if (!batch.learns(b)) continue;
    T* p = batch.of(b);
    const T* x = batch.x + b * n;
    T sum = 0;
    for (int64_t j = lane; j < n; j += 32) sum += (j <= i ? p[i * batch.width + j] : p[j * batch.width + i]) * x[j];
    sum = warp_total(sum);
    if (lane == 0) p[(n + batch.pending(b)) * batch.width + i] = sum;
  }
}

// From y = P0 x to the gain and the row h. One block per memory.
template <class T, int kThreads>
__global__ void rls_gain(RlsBatch<T> batch) {
  BDTORCH_SHARED(T, part, kThreads / 32);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int64_t n = batch.n, width = batch.width;
  for (int64_t b = blockIdx.x; b < batch.n_batch; b += gridDim.x) {
    T* h = batch.of(b) + n * width;
    T *gain = h + batch.block * width, *sample = gain + width;
    const T* x = batch.x + b * n;
    if (!batch.learns(b)) {
      for (int64_t i = threadIdx.x; i < width; i += kThreads) gain[i] = 0;
      continue;
    }
    const int64_t pending = batch.pending(b);
    T* row = h + pending * width;
    for (int64_t i = threadIdx.x; i < n; i += kThreads) sample[i] = x[i];
    // Turn k < pending takes h[k] (h[k]^T x) off; the last sums x^T y.
    for (int64_t k = 0; k <= pending; ++k) {
      const T* other = h + k * width;
      T sum = 0;
      for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += other[i] * x[i];
      sum = warp_total(sum);
      if (lane == 0) part[warp] = sum;
      __syncthreads();
      T total = 0;
      for (int w = 0; w < kThreads / 32; ++w) total += part[w];
      __syncthreads();  // the next turn overwrites the parts
      if (k < pending) {
        for (int64_t i = threadIdx.x; i < n; i += kThreads) row[i] -= total * other[i];
        continue;
      }
      const T scaled = batch.age(b) * batch.forgetting + total;
      const T to_gain = 1 / scaled, to_row = 1 / bdtorch::sqrt(scaled);
      for (int64_t i = threadIdx.x; i < width; i += kThreads) {
        const T y = i < n ? row[i] : T(0);
        gain[i] = y * to_gain;
        row[i] = y * to_row;
      }
    }
  }
}

// P0 <- scale (P0 - h^T h) where the last row is taken. One thread per element.
template <class T>
__global__ void rls_fold(RlsBatch<T> batch, bool small) {
  const int64_t n = batch.n, width = batch.width, total = batch.n_batch * n * width;
  for (int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; e < total; e += int64_t(gridDim.x) * blockDim.x) {
    const int64_t b = e / (n * width), i = e / width % n, j = e % width;
    if (!batch.learns(b) || batch.pending(b) + 1 != batch.block || (!small && j >= (i / 32 + 1) * 32)) continue;
    T* p = batch.of(b);
    const T* h = p + n * width;
    T sum = p[i * width + j];
    for (int64_t k = 0; k < batch.block; ++k) sum -= h[k * width + i] * h[k * width + j];
    p[i * width + j] = sum / (batch.age(b) * batch.forgetting);
  }
}

}  // namespace bdtorch::cuda
