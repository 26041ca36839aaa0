// CUDA kernels of the event-driven CSR ops; see bdtorch/event_csr.h for the formulas and the structure.
//
// Two launches make a product y = s W: compact_spikes lists the active neurons of the whole batch, scatter_events gives
// each of them a group of threads. The number of events stays on the device, so the host never waits. scatter_events
// adds with atomics: its sums are in no fixed order, unlike those of the CPU and of the other kernels. scatter_ordered
// makes the same product in the order of the CPU, to the bit, for deterministic runs; it takes longer.
#pragma once
#include <cstdint>
#include <type_traits>

#include "bdtorch/two_bytes.h"
#include "compiler.h"

namespace bdtorch::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

// The first k in [begin, end) with indices[k] >= bound, or end.
__device__ inline int64_t first_at_least(const int32_t* indices, int64_t begin, int64_t end, int64_t bound) {
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (indices[middle] < bound)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

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

// Calls visit(k, j, s_i) for the synapses k of active rows i that end at the targets j in [begin, end), for every target
// in the order of the synapses. All threads of a block call it: it takes one active row after the other. Parallel
// synapses are neighbours, and belong to one thread. `active` is shared, a flag for each thread.
template <int kThreads, class P, class S, class Visit>
__device__ inline void visit_in_order(const int32_t* indices, const P* indptr, const S* spikes, int64_t n_pre,
                                      int64_t begin, int64_t end, bool* active, const Visit& visit) {
  for (int64_t first = 0; first < n_pre; first += kThreads) {
    const int64_t mine = first + threadIdx.x;
    __syncthreads();  // all have read the last stretch of flags
    active[threadIdx.x] = mine < n_pre && spikes[mine] != S(0);
    __syncthreads();
    for (int r = 0; r < kThreads; ++r) {
      if (!active[r]) continue;  // the same for all threads of the block
      const int64_t i = first + r;
      const int64_t row_end = int64_t(indptr[i + 1]);
      const int64_t k_begin = first_at_least(indices, int64_t(indptr[i]), row_end, begin);
      const int64_t k_end = first_at_least(indices, k_begin, row_end, end);
      for (int64_t k = k_begin + threadIdx.x; k < k_end; k += kThreads) {
        const int32_t j = indices[k];
        if (k > k_begin && indices[k - 1] == j) continue;
        for (int64_t m = k; m < k_end && indices[m] == j; ++m) visit(m, j, spikes[i]);
      }
      __syncthreads();  // the next row adds to the same targets
    }
  }
}

// y[b][j] = sum_i w_ij s_bi, the rows i ascending. A block owns a part of the targets of one batch row: nobody else adds
// to them.
template <class W, class P, class S, class T, int kThreads>
__global__ void scatter_ordered(const W* __restrict__ weights, bool shared_weight, const int32_t* __restrict__ indices,
                                const P* __restrict__ indptr, const S* __restrict__ spikes, int64_t n_batch,
                                int64_t n_pre, int64_t n_post, int64_t part_size, T* __restrict__ y) {
  BDTORCH_SHARED(bool, active, kThreads);
  const int64_t n_parts = (n_post + part_size - 1) / part_size;
  for (int64_t task = blockIdx.x; task < n_batch * n_parts; task += gridDim.x) {
    const int64_t b = task / n_parts, begin = task % n_parts * part_size;
    const int64_t end = begin + part_size < n_post ? begin + part_size : n_post;
    T* y_b = y + b * n_post;
    // No barrier: visit_in_order begins with one, and where there are no rows nobody reads.
    for (int64_t j = begin + threadIdx.x; j < end; j += kThreads) y_b[j] = T(0);
    visit_in_order<kThreads>(indices, indptr, spikes + b * n_pre, n_pre, begin, end, active,
                             [&](int64_t k, int32_t j, S spike) {
                               y_b[j] += T(shared_weight ? weights[0] : weights[k]) * T(spike);
                             });
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
    for (int64_t k = int64_t(indptr[i]) + lane; k < end; k += 32) {
      if (std::is_same<S, bool>::value && !spikes_b[indices[k]]) continue;  // not 0 times a weight that may be infinite
      sum += T(shared_weight ? weights[0] : weights[k]) * T(spikes_b[indices[k]]);
    }
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
