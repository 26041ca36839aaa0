// CUDA kernels of products with a delay for every synapse; see bdtorch/delay.h for the formula.
//
// scatter_delayed adds with atomics, in no fixed order; scatter_delayed_ordered in the order of the CPU, to the bit, for
// deterministic runs; it takes longer.
#pragma once
#include <cstdint>

#include "bdtorch/delay.h"
#include "event_csr.cuh"

namespace bdtorch::cuda {

// One warp per row and sample; those of silent neurons pass on at once.
template <class W, class P, class S, class T>
__global__ void scatter_delayed(T* __restrict__ ring, const int64_t* __restrict__ cursor, int64_t n_slots,
                                const W* __restrict__ weights, bool shared_weight, const int32_t* __restrict__ indices,
                                const P* __restrict__ indptr, const int32_t* __restrict__ delays,
                                const S* __restrict__ spikes, int64_t n_batch, int64_t n_pre, int64_t n_post) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t n_warps = int64_t(gridDim.x) * blockDim.x / 32;
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  for (int64_t row = first; row < n_batch * n_pre; row += n_warps) {
    const S spike = spikes[row];
    if (spike == S(0)) continue;
    const int64_t b = row / n_pre, i = row % n_pre, end = int64_t(indptr[i + 1]);
    for (int64_t k = int64_t(indptr[i]) + lane; k < end; k += 32) {
      const int64_t slot = slot_after(cursor[b], delays[k], n_slots);
      const T weight = T(shared_weight ? weights[0] : weights[k]);
      atomicAdd(&ring[(b * n_slots + slot) * n_post + indices[k]], weight * T(spike));
    }
  }
}

// A block owns a part of the targets of one sample, in all slots.
template <class W, class P, class S, class T, int kThreads>
__global__ void scatter_delayed_ordered(T* __restrict__ ring, const int64_t* __restrict__ cursor, int64_t n_slots,
                                        const W* __restrict__ weights, bool shared_weight,
                                        const int32_t* __restrict__ indices, const P* __restrict__ indptr,
                                        const int32_t* __restrict__ delays, const S* __restrict__ spikes,
                                        int64_t n_batch, int64_t n_pre, int64_t n_post, int64_t part_size) {
  BDTORCH_SHARED(bool, active, kThreads);
  const int64_t n_parts = (n_post + part_size - 1) / part_size;
  for (int64_t task = blockIdx.x; task < n_batch * n_parts; task += gridDim.x) {
    const int64_t b = task / n_parts, begin = task % n_parts * part_size;
    const int64_t end = begin + part_size < n_post ? begin + part_size : n_post;
    T* ring_b = ring + b * n_slots * n_post;
    visit_in_order<kThreads>(indices, indptr, spikes + b * n_pre, n_pre, begin, end, active,
                             [&](int64_t k, int32_t j, S spike) {
                               const T weight = T(shared_weight ? weights[0] : weights[k]);
                               const int64_t slot = slot_after(cursor[b], delays[k], n_slots);
                               ring_b[slot * n_post + j] += weight * T(spike);
                             });
  }
}

}  // namespace bdtorch::cuda
