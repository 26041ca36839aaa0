// CUDA kernels of the event-driven dense products; see bdtorch/event_dense.h for the formulas.
//
// No atomics: every sum belongs to one thread or one warp, so it has an order, the same in every run.
#pragma once
#include <cstdint>

#include "compiler.h"

namespace bdtorch::cuda {

// y[b][j] = sum_i s_bi M[i][j], i ascending. A block owns kThreads columns of one sample: it lists the active rows of a
// stretch of kThreads, then all its threads read these rows side by side. `stride` is the distance between the samples'
// matrices, 0 for one matrix.
template <class W, class S, class T, int kThreads>
__global__ void sum_active_rows(const W* __restrict__ matrix, int64_t stride, const S* __restrict__ spikes,
                                int64_t n_batch, int64_t n_rows, int64_t n_columns, T* __restrict__ y) {
  constexpr int n_warps = kThreads / 32;
  BDTORCH_SHARED(int, warp_offset, n_warps + 1);
  BDTORCH_SHARED(int, listed, kThreads);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int64_t n_parts = (n_columns + kThreads - 1) / kThreads;
  // All bounds are the same for all threads of a block: all of them reach every barrier.
  for (int64_t task = blockIdx.x; task < n_batch * n_parts; task += gridDim.x) {
    const int64_t b = task / n_parts, j = task % n_parts * kThreads + threadIdx.x;
    const W* m = matrix + b * stride;
    const S* s = spikes + b * n_rows;
    T sum = T(0);
    for (int64_t first = 0; first < n_rows; first += kThreads) {
      const int64_t mine = first + threadIdx.x;
      const bool active = mine < n_rows && s[mine] != S(0);
      const unsigned active_lanes = __ballot_sync(0xffffffffu, active);
      if (lane == 0) warp_offset[warp] = __popc(active_lanes);
      __syncthreads();
      if (threadIdx.x == 0) {
        int total = 0;
        for (int w = 0; w < n_warps; ++w) {
          const int count = warp_offset[w];
          warp_offset[w] = total;
          total += count;
        }
        warp_offset[n_warps] = total;
      }
      __syncthreads();
      if (active) listed[warp_offset[warp] + __popc(active_lanes & ((1u << lane) - 1u))] = int(threadIdx.x);
      __syncthreads();
      if (j < n_columns)
        for (int e = 0; e < warp_offset[n_warps]; ++e) {
          const int64_t i = first + listed[e];
          sum += T(m[i * n_columns + j]) * T(s[i]);
        }
      // No barrier: what the next stretch writes before its first one, nobody reads any more.
    }
    if (j < n_columns) y[b * n_columns + j] = sum;
  }
}

// y[b][i] = sum_j M[i][j] s_bj: one warp per row and sample, partial sums added in the order of a tree. Elements of
// silent columns are not read.
template <class W, class S, class T>
__global__ void sum_active_columns(const W* __restrict__ matrix, int64_t stride, const S* __restrict__ spikes,
                                   int64_t n_batch, int64_t n_rows, int64_t n_columns, T* __restrict__ y) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t task = first; task < n_batch * n_rows; task += n_warps) {
    const int64_t b = task / n_rows;
    const W* row = matrix + b * stride + task % n_rows * n_columns;
    const S* s = spikes + b * n_columns;
    T sum = T(0);
    for (int64_t j = lane; j < n_columns; j += 32)
      if (s[j] != S(0)) sum += T(row[j]) * T(s[j]);
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_down_sync(0xffffffffu, sum, distance);
    if (lane == 0) y[task] = sum;
  }
}

}  // namespace bdtorch::cuda
