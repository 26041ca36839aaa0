// CUDA kernels of the random ops: one thread per Philox block, the arithmetic of bdtorch/random.h.
#pragma once
#include <cstdint>

#include "bdtorch/random_counts.h"
#include "compiler.h"

namespace bdtorch::cuda {

// The pairs (key, counter) of a batch; a stride of 0 repeats the first value.
struct Streams {
  const int64_t* keys;
  const int64_t* counters;
  int64_t key_stride;
  int64_t counter_stride;
  int64_t n_batch;
  int64_t n;
};

// Calls store(b, i, number i of batch element b) for all of them.
template <class Distribution, class Store>
__device__ void for_each_number_of_batch(const Streams& streams, const Store& store) {
  const int64_t blocks_per_element = (streams.n + Distribution::per_block - 1) / Distribution::per_block;
  const int64_t n_threads = int64_t(gridDim.x) * blockDim.x;
  const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t task = first; task < streams.n_batch * blocks_per_element; task += n_threads) {
    const int64_t b = task / blocks_per_element, block = task % blocks_per_element;
    const auto key = uint64_t(streams.keys[b * streams.key_stride]);
    const auto step = uint64_t(streams.counters[b * streams.counter_stride]);
    const auto numbers = Distribution::of(philox(key, step, uint64_t(block)));
    for (int j = 0; j < Distribution::per_block; ++j) {
      const int64_t i = block * Distribution::per_block + j;
      if (i < streams.n) store(b, i, numbers.value[j]);
    }
  }
}

template <class Distribution, class T>
__global__ void fill_numbers(Streams streams, T* __restrict__ out) {
  for_each_number_of_batch<Distribution>(streams,
                                         [&](int64_t b, int64_t i, T value) { out[b * streams.n + i] = value; });
}

template <class T>
__global__ void fill_bernoulli(Streams streams, const T* __restrict__ p, int64_t p_stride, int64_t p_batch_stride,
                               bool* __restrict__ out) {
  for_each_number_of_batch<Uniform<T>>(streams, [&](int64_t b, int64_t i, T u) {
    out[b * streams.n + i] = u < p[b * p_batch_stride + i * p_stride];
  });
}

// out[b][i] = draw(key, step, i, parameter) with the parameter of number i: one thread per count.
template <class T, class Draw>
__global__ void fill_counts(Streams streams, const T* __restrict__ parameters, int64_t stride, int64_t batch_stride,
                            Draw draw, int64_t* __restrict__ out) {
  const int64_t n_threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; e < streams.n_batch * streams.n; e += n_threads) {
    const int64_t b = e / streams.n, i = e % streams.n;
    const auto key = uint64_t(streams.keys[b * streams.key_stride]);
    const auto step = uint64_t(streams.counters[b * streams.counter_stride]);
    out[e] = draw(key, step, i, double(parameters[b * batch_stride + i * stride]));
  }
}

struct DrawPoisson {
  __device__ int64_t operator()(uint64_t key, uint64_t step, int64_t i, double rate) const {
    return poisson(key, step, i, rate);
  }
};

struct DrawBinomial {
  int64_t trials;

  __device__ int64_t operator()(uint64_t key, uint64_t step, int64_t i, double p) const {
    return binomial(key, step, i, trials, p);
  }
};

}  // namespace bdtorch::cuda
