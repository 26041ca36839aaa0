// CUDA kernels of the event-driven changes of weights; see bdtorch/plasticity.h for the formula.
//
// Every weight belongs to one thread, so the results are those of the CPU, to the bit. WeightChange holds the terms of
// the first sample; those of sample b lie b * n_terms further on.
#pragma once
#include <cstdint>

#include "bdtorch/plasticity.h"
#include "compiler.h"

namespace bdtorch::cuda {

template <class W, class T>
__device__ inline W change_of(const WeightChange<T>& change, W w, T s, int64_t term) {
  return change.b ? changed<true>(w, s, change.a[term], change.b[term], change.low, change.high)
                  : changed<false>(w, s, change.a[term], T(0), change.low, change.high);
}

// Dense weights: one warp per row. With `columns` the columns spike, so that all rows are visited and of each the active
// columns changed; otherwise only active rows are.
template <class W, class S, class T, bool columns>
__global__ void change_dense(W* __restrict__ w, const S* __restrict__ spikes, WeightChange<T> change, int64_t n_batch,
                             int64_t n_rows, int64_t n_columns) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t row = first; row < n_batch * n_rows; row += n_warps) {
    const int64_t b = row / n_rows;
    if (!columns && spikes[row] == S(0)) continue;
    for (int64_t j = lane; j < n_columns; j += 32) {
      const S s = columns ? spikes[b * n_columns + j] : spikes[row];
      if (columns && s == S(0)) continue;
      W& weight = w[row * n_columns + j];
      weight = change_of(change, weight, T(s), columns ? row : b * n_columns + j);
    }
  }
}

// Sparse weights: one warp per active row of the structure.
template <class W, class P, class S, class T>
__global__ void change_csr(W* __restrict__ w, const S* __restrict__ spikes, WeightChange<T> change,
                           const int32_t* __restrict__ indices, const P* __restrict__ indptr,
                           const int32_t* __restrict__ synapses, int64_t n_batch, int64_t n_rows, int64_t n_terms,
                           int64_t n_synapses) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t row = first; row < n_batch * n_rows; row += n_warps) {
    const S s = spikes[row];
    if (s == S(0)) continue;
    const int64_t b = row / n_rows, i = row % n_rows, end = int64_t(indptr[i + 1]);
    for (int64_t m = int64_t(indptr[i]) + lane; m < end; m += 32) {
      W& weight = w[b * n_synapses + (synapses ? int64_t(synapses[m]) : m)];
      weight = change_of(change, weight, T(s), b * n_terms + indices[m]);
    }
  }
}

}  // namespace bdtorch::cuda
