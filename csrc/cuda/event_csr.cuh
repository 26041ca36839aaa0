// CUDA kernels of the event-driven CSR ops; see bdtorch/event_csr.h for the formulas and the structure.
//
// Two launches make a product y = s W: compact_spikes lists the active neurons of the whole batch, scatter_events gives
// each of them a group of threads. The number of events stays on the device, so the host never waits. scatter_events
// adds with atomics: its sums are in no fixed order, unlike those of the CPU and of the other two kernels.
#pragma once
#include <cstdint>

#include "bdtorch/bfloat16.h"
#include "compiler.h"

namespace bdtorch::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

// Appends the indices n of nonzero spikes[n] to `events`, in no particular order, and their number to *n_events.
// One global atomic per block and stride: positions within a block come from a prefix sum over its warps.
template <class S, int kThreads>
__global__ void compact_spikes(const S* __restrict__ spikes, int64_t n_spikes, int64_t* __restrict__ events,
                               unsigned long long* __restrict__ n_events) {
  constexpr int n_warps = kThreads / 32;
  BDTORCH_SHARED(int, warp_offset, n_warps);
  BDTORCH_SHARED(int64_t, block_offset, 1);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  // The bound is the same for all threads of a block: all of them reach every barrier.
  for (int64_t tile = int64_t(blockIdx.x) * kThreads; tile < n_spikes; tile += int64_t(gridDim.x) * kThreads) {
    const int64_t n = tile + threadIdx.x;
    const bool active = n < n_spikes && spikes[n] != S(0);
    const unsigned active_lanes = __ballot_sync(kAllLanes, active);
    if (lane == 0) warp_offset[warp] = __popc(active_lanes);
    __syncthreads();
    if (threadIdx.x == 0) {
      int total = 0;
      for (int w = 0; w < n_warps; ++w) {
        const int count = warp_offset[w];
        warp_offset[w] = total;
        total += count;
      }
      block_offset[0] = total == 0 ? 0 : int64_t(atomicAdd(n_events, (unsigned long long)total));
    }
    __syncthreads();
    const unsigned lanes_below = active_lanes & ((1u << lane) - 1u);
    if (active) events[block_offset[0] + warp_offset[warp] + __popc(lanes_below)] = n;
    __syncthreads();  // the next stride overwrites the offsets
  }
}

// y[b][indices[k]] += w_k s_bi for the synapses k of every active neuron i of batch row b.
// `threads_per_row` consecutive threads share a row; it divides the size of a block.
template <class W, class P, class S, class T>
__global__ void scatter_events(const int64_t* __restrict__ events, const unsigned long long* __restrict__ n_events,
                               const W* __restrict__ weights, bool shared_weight, const int32_t* __restrict__ indices,
                               const P* __restrict__ indptr, const S* __restrict__ spikes, int64_t n_pre,
                               int64_t n_post, int threads_per_row, T* __restrict__ y) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t n_groups = int64_t(gridDim.x) * blockDim.x / threads_per_row;
  const int64_t end_of_events = int64_t(*n_events);
  for (int64_t e = thread / threads_per_row; e < end_of_events; e += n_groups) {
    const int64_t event = events[e], b = event / n_pre, i = event % n_pre;
    const T spike = T(spikes[event]);
    const int64_t end = int64_t(indptr[i + 1]);
    for (int64_t k = int64_t(indptr[i]) + thread % threads_per_row; k < end; k += threads_per_row)
      atomicAdd(&y[b * n_post + indices[k]], T(shared_weight ? weights[0] : weights[k]) * spike);
  }
}

// out[b][i] = sum_k w_k s[b][indices[k]]: one warp per row and batch row, partial sums added in the order of a tree.
template <class W, class P, class S, class T>
__global__ void gather_rows(const W* __restrict__ weights, bool shared_weight, const int32_t* __restrict__ indices,
                            const P* __restrict__ indptr, const S* __restrict__ spikes, int64_t n_batch, int64_t n_pre,
                            int64_t n_post, T* __restrict__ out) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t row = first; row < n_batch * n_pre; row += n_warps) {
    const int64_t i = row % n_pre;
    const S* spikes_b = spikes + row / n_pre * n_post;
    const int64_t end = int64_t(indptr[i + 1]);
    T sum = T(0);
    for (int64_t k = int64_t(indptr[i]) + lane; k < end; k += 32)
      sum += T(shared_weight ? weights[0] : weights[k]) * T(spikes_b[indices[k]]);
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_down_sync(kAllLanes, sum, distance);
    if (lane == 0) out[row] = sum;
  }
}

// out[k] = sum_b x[b][i] g[b][indices[k]], b ascending: one warp per row, one thread per synapse.
template <class T, class P, class S>
__global__ void outer_rows(const S* __restrict__ x, const T* __restrict__ g, const int32_t* __restrict__ indices,
                           const P* __restrict__ indptr, int64_t n_batch, int64_t n_pre, int64_t n_post,
                           T* __restrict__ out) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t i = first; i < n_pre; i += n_warps) {
    const int64_t end = int64_t(indptr[i + 1]);
    for (int64_t k = int64_t(indptr[i]) + lane; k < end; k += 32) {
      T sum = T(0);
      for (int64_t b = 0; b < n_batch; ++b) {
        const S x_bi = x[b * n_pre + i];
        if (x_bi != S(0)) sum += T(x_bi) * g[b * n_post + indices[k]];
      }
      out[k] = sum;
    }
  }
}

}  // namespace bdtorch::cuda
